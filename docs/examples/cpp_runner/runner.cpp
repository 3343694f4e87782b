// A runner for `detr-spec check --runner ./runner`: ms_deform_attn and its gradients, without torch.
//
//     g++ -std=c++17 -O2 -o runner runner.cpp
//
// With -DBROKEN locations are scaled by (H, W) where it must be (W, H).

#include "wire.hpp"

#include <cmath>

void require(bool holds, const std::string& said) {
    if (!holds) throw std::invalid_argument(said);
}

// Everything between is double, so that each result is rounded once.
struct Attention {
    const Tensor &value, &shapes, &starts, &locations, &weights;
    int64_t B, S, M, D, Q, L, P;

    explicit Attention(const Arguments& given)
        : value(given.at("value")), shapes(given.at("spatial_shapes")), starts(given.at("level_start_index")),
          locations(given.at("sampling_locations")), weights(given.at("attention_weights")) {
        require(value.shape.size() == 4, "value must be (batch, cell, head, channel), got " + listed(value.shape));
        require(shapes.shape.size() == 2 && shapes.shape[1] == 2, "spatial_shapes must be (level, 2)");
        require(locations.shape.size() == 6 && locations.shape[5] == 2, "sampling_locations must have six axes");
        B = value.shape[0], S = value.shape[1], M = value.shape[2], D = value.shape[3];
        Q = locations.shape[1], L = shapes.shape[0], P = locations.shape[4];
        require(locations.shape == Sizes{B, Q, M, L, P, 2}, "sampling_locations " + listed(locations.shape) +
                " disagree with value " + listed(value.shape) + " and " + std::to_string(L) + " levels");
        require(weights.shape == Sizes{B, Q, M, L, P}, "attention_weights " + listed(weights.shape) +
                " disagree with sampling_locations " + listed(locations.shape));
        require(starts.shape == Sizes{L}, "level_start_index must be (level,), got " + listed(starts.shape));
        require(value.dtype == locations.dtype && value.dtype == weights.dtype, "dtypes differ");
        int64_t cells = 0;
        for (int64_t l = 0; l < L; l++) {
            require(shapes.numbers[2 * l] >= 0 && shapes.numbers[2 * l + 1] >= 0, "a level has a negative side");
            require(starts.numbers[l] == cells, "level_start_index disagrees with spatial_shapes");
            cells += int64_t(shapes.numbers[2 * l]) * int64_t(shapes.numbers[2 * l + 1]);
        }
        require(cells == S, "value has " + std::to_string(S) + " cells, the levels have " + std::to_string(cells));
    }

    // Calls visit(sample, row of the output, row of the value or -1, interpolation weight, its slopes in x and y)
    // for the four corners of each sample in range.
    template <class Visit> void corners(Visit visit) const {
        for (int64_t sample = 0; sample < B * Q * M * L * P; sample++) {
            const int64_t l = sample / P % L, row = sample / (P * L), m = row % M, b = row / (M * Q);
            const int64_t H = int64_t(shapes.numbers[2 * l]), W = int64_t(shapes.numbers[2 * l + 1]);
#ifdef BROKEN
            const double across = double(H), down = double(W);
#else
            const double across = double(W), down = double(H);
#endif
            const double x = locations.numbers[2 * sample] * across - 0.5;
            const double y = locations.numbers[2 * sample + 1] * down - 0.5;
            if (!(x > -1 && x < W && y > -1 && y < H)) continue;  // nor if they are not numbers
            const int64_t left = int64_t(std::floor(x)), top = int64_t(std::floor(y));
            const double fx = x - double(left), fy = y - double(top);
            for (int corner = 0; corner < 4; corner++) {
                const int64_t right = corner % 2, lower = corner / 2, i = top + lower, j = left + right;
                if (i < 0 || i >= H || j < 0 || j >= W) continue;
                const double in_x = right ? fx : 1 - fx, in_y = lower ? fy : 1 - fy;
                const int64_t cell = (b * S + int64_t(starts.numbers[l]) + i * W + j) * M + m;
                visit(sample, row, cell, in_x * in_y, (right ? 1 : -1) * in_y * across, (lower ? 1 : -1) * in_x * down);
            }
        }
    }

    Tensor output() const {
        Tensor found{value.dtype, {B, Q, M * D}, std::vector<double>(B * Q * M * D)};
        corners([&](int64_t sample, int64_t row, int64_t cell, double share, double, double) {
            for (int64_t d = 0; d < D; d++)
                found.numbers[row * D + d] += weights.numbers[sample] * (share * value.numbers[cell * D + d]);
        });
        return found;
    }

    // By the name of the argument.
    Arguments gradients(const Tensor& incoming) const {
        require(incoming.shape == Sizes{B, Q, M * D}, "the gradient of the output has not its shape");
        Arguments found;
        for (auto& [name, like] : {std::pair{"value", &value}, {"sampling_locations", &locations},
                                   {"attention_weights", &weights}})
            found[name] = {like->dtype, like->shape, std::vector<double>(like->numbers.size())};
        auto &of_value = found["value"].numbers, &of_weight = found["attention_weights"].numbers;
        auto& of_location = found["sampling_locations"].numbers;
        corners([&](int64_t sample, int64_t row, int64_t cell, double share, double in_x, double in_y) {
            const double weight = weights.numbers[sample];
            double product = 0;
            for (int64_t d = 0; d < D; d++) {
                product += incoming.numbers[row * D + d] * value.numbers[cell * D + d];
                of_value[cell * D + d] += share * weight * incoming.numbers[row * D + d];
            }
            of_weight[sample] += share * product;
            of_location[2 * sample] += in_x * weight * product;
            of_location[2 * sample + 1] += in_y * weight * product;
        });
        return found;
    }
};

int main() {
    const std::string hello =
        R"({"message":"hello","protocol":1,"holds":false,"name":"cpp-runner","version":"1",)"
        R"("operations":{"ms_deform_attn":null},"devices":["cpu"],"dtypes":["float32","float64"],)"
        R"("features":["backward","deterministic"]})";
    return serve(hello, {{"ms_deform_attn",
                          {[](const Arguments& given) { return Attention(given).output(); },
                           [](const Arguments& given, const Tensor& incoming) {
                               return Attention(given).gradients(incoming);
                           }}}});
}
