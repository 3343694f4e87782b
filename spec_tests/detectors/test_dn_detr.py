"""DN-DETR: denoising queries beside matching ones, which do not notice; what they are told; gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detr_reference.detectors.config import DABDETRConfig, DNDETRConfig
from detr_reference.detectors.dab_detr import DABDETR
from detr_reference.detectors.dn_detr import DNDETR, build
from detr_reference.losses.batch_targets import BatchTargets
from helpers.tiny.detector_cases import TINY, padded_images, scrambled

CONFIG = DNDETRConfig(**TINY, denoising_groups=2)
COUNTS = torch.tensor([1, 3])
LABELS = torch.tensor([2, 0, 1, 1])


def model(config: DNDETRConfig = CONFIG) -> DNDETR:
    return scrambled(DNDETR(config)).train()


def targets() -> tuple[Tensor, Tensor, Tensor]:
    boxes = torch.rand(4, 4, dtype=torch.float64) * 0.4 + 0.3
    return LABELS, boxes, COUNTS


def test_matching_queries_do_not_notice() -> None:
    """The same predictions with and without denoising, to the last bits but for the order of sums."""
    detr, batch = model(), padded_images()
    alone, beside = detr(*batch), detr(*batch, *targets())
    assert list(beside) == ["pred_logits", "pred_boxes", "dn_logits", "dn_boxes"]
    assert beside["dn_logits"].shape == (3, 2, 2 * 3, 3)
    assert beside["dn_boxes"].shape == (3, 2, 2 * 3, 4)
    for name in ("pred_logits", "pred_boxes"):
        torch.testing.assert_close(beside[name], alone[name], rtol=1e-12, atol=1e-12)


def test_who_sees_whom() -> None:
    """Another content in one group changes that group alone; of the matching queries, everything."""
    detr, (images, mask) = model(), padded_images()
    noised, anchors = detr._noised(BatchTargets(*targets())), detr.anchors(batch=2)
    cells = detr.cells(images, mask)
    content = torch.cat((noised["content"], torch.randn(2, 5, 8, dtype=torch.float64)), dim=1)
    references = torch.cat((noised["references"].sigmoid(), anchors), dim=1)

    def hidden(content: Tensor) -> Tensor:
        return detr.transformer(cells, content, references, detr.bbox_embed, noised["attn_mask"])[0]

    before, parts = hidden(content), {"first": slice(0, 3), "second": slice(3, 6), "matching": slice(6, 11)}
    for name, part in parts.items():
        other = content.clone()
        other[:, part] += torch.randn(8, dtype=torch.float64)
        moved = (hidden(other) - before).abs().amax((0, 1, 3)) > 1e-9
        expected = torch.zeros(11, dtype=torch.bool)
        expected[part if name != "matching" else slice(None)] = True
        assert torch.equal(moved, expected), name


def test_noise_is_for_training() -> None:
    """In evaluation targets are not used, and no random numbers are drawn."""
    detr, batch, given = model().eval(), padded_images(), targets()
    state = torch.get_rng_state()
    assert list(detr(*batch, *given)) == ["pred_logits", "pred_boxes"]
    assert torch.equal(torch.get_rng_state(), state)


def test_without_boxes_there_is_nothing_to_denoise() -> None:
    detr, batch = model(), padded_images()
    nothing = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.float64), torch.zeros(2).long())
    found, alone = detr(*batch, *nothing), detr(*batch)
    assert found["dn_logits"].shape == (3, 2, 0, 3)
    assert found["dn_boxes"].shape == (3, 2, 0, 4)
    torch.testing.assert_close(found["pred_boxes"], alone["pred_boxes"])


def test_equals_dab_detr_of_the_content_that_matching_queries_have() -> None:
    """The one difference outside training: content begins with (label_enc[K], 0) instead of zeros."""
    detr, (images, mask) = model().eval(), padded_images()
    with torch.no_grad():
        detr.label_enc.weight[-1] = 0
    dab = DABDETR(DABDETRConfig(**TINY)).double().eval()
    dab.load_state_dict({name: value for name, value in detr.state_dict().items() if name != "label_enc.weight"})
    for name, expected in dab(images, mask).items():
        assert torch.equal(detr(images, mask)[name], expected)


def test_a_denoising_query_is_told_its_label_its_box_and_its_kind() -> None:
    """Without noise: content (label_enc[label], 1), reference the box; nothing in slots without a box."""
    detr = model(replace(CONFIG, label_noise_probability=0.0, box_noise_scale=0.0))
    labels, boxes, counts = targets()
    noised = detr._noised(BatchTargets(labels, boxes, counts))
    for group in (0, 3):
        content, references = (noised[name][:, group : group + 3] for name in ("content", "references"))
        torch.testing.assert_close(content[1, :, :-1], detr.label_enc.weight[labels[1:]])
        torch.testing.assert_close(references[1].sigmoid(), boxes[1:])
        assert (content[1, :, -1] == 1).all()
        assert not content[0, 1:].any()
        assert not references[0, 1:].any()


def test_gradients_reach_the_label_embedding() -> None:
    """Rows of the labels through the denoising queries, the last row through all others."""
    detr, batch = model(replace(CONFIG, label_noise_probability=0.0)), padded_images()
    found = detr(*batch, *targets())
    sum((each * torch.randn_like(each)).sum() for each in found.values()).backward()
    assert (detr.label_enc.weight.grad.abs().amax(1) > 1e-9).tolist() == [True, True, True, True]
    detr.zero_grad()
    detr(*batch)["pred_logits"].sum().backward()
    assert (detr.label_enc.weight.grad.abs().amax(1) > 1e-9).tolist() == [False, False, False, True]


def test_published_settings() -> None:
    """Five groups, flips with probability 0.2, boxes moved by up to 0.4; DAB-DETR's parameters and 81 x 255 more."""
    config = DNDETRConfig()
    assert (config.denoising_groups, config.label_noise_probability, config.box_noise_scale) == (5, 0.2, 0.4)
    with torch.device("meta"):
        ours, dab = (sum(p.numel() for p in m.parameters()) for m in (DNDETR(config), DABDETR(DABDETRConfig())))
    assert ours - dab == 81 * 255


def test_build_copies_the_parameters_it_is_given() -> None:
    state = model().state_dict()
    for name, value in build(CONFIG, state).state_dict().items():
        assert torch.equal(value, state[name])
        assert value.data_ptr() != state[name].data_ptr()


def test_wrong_settings_and_calls_are_named() -> None:
    with pytest.raises(ValueError, match="denoising_groups must be at least 1, got 0"):
        replace(CONFIG, denoising_groups=0)
    with pytest.raises(ValueError, match="label_noise_probability must lie between 0 and 1, got 2"):
        replace(CONFIG, label_noise_probability=2.0)
    with pytest.raises(ValueError, match=r"belong together; missing: target_boxes, target_counts"):
        model()(*padded_images(), LABELS)
