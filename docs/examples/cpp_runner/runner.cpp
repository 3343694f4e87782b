// A runner for `detr-spec check --runner ./runner`: ms_deform_attn and its gradients, without torch.
//
//     g++ -std=c++17 -O2 -o runner runner.cpp
//
// Yours keeps everything but `Attention`. With -DBROKEN locations are scaled by (H, W) where it must be (W, H).

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using Bytes = std::vector<char>;
using Sizes = std::vector<int64_t>;

// What this program does not do; the judge leaves the question open.
struct Refused : std::runtime_error { using std::runtime_error::runtime_error; };

// -- JSON ------------------------------------------------------------------------------------------------------------

struct Json {
    enum { Null, Bool, Number, String, List, Object } kind = Null;
    double number = 0;
    std::string text;
    std::vector<Json> items;                 // of a list, and the values of an object
    std::vector<std::string> names;          // of an object

    const Json* find(const std::string& name) const {
        for (size_t i = 0; i < names.size(); i++) if (names[i] == name) return &items[i];
        return nullptr;
    }
    const Json& operator[](const std::string& name) const {
        if (const Json* found = find(name)) return *found;
        throw Refused("the message lacks " + name);
    }
    Sizes sizes() const {
        Sizes found;
        for (const Json& each : items) found.push_back(int64_t(each.number));
        return found;
    }
};

class Parser {
public:
    explicit Parser(const std::string& source) : text(source) {}

    Json value() {
        Json found;
        switch (peek()) {
        case '{':
            found.kind = Json::Object;
            each('}', [&] { found.names.push_back(string()); expect(':'); found.items.push_back(value()); });
            break;
        case '[':
            found.kind = Json::List;
            each(']', [&] { found.items.push_back(value()); });
            break;
        case '"': found.kind = Json::String; found.text = string(); break;
        case 't': word("true"); found.kind = Json::Bool; found.number = 1; break;
        case 'f': word("false"); found.kind = Json::Bool; break;
        case 'n': word("null"); break;
        default:
            size_t used = 0;
            found.kind = Json::Number;
            found.number = std::stod(text.substr(at, 40), &used);
            at += used;
        }
        return found;
    }

private:
    const std::string& text;
    size_t at = 0;

    char peek() {
        while (at < text.size() && std::isspace((unsigned char)text[at])) at++;
        return at < text.size() ? text[at] : '\0';
    }
    void expect(char wanted) {
        if (peek() != wanted) throw std::runtime_error(std::string("no JSON: expected ") + wanted);
        at++;
    }
    void word(const char* wanted) { for (; *wanted; wanted++) expect(*wanted); }

    template <class Item> void each(char end, Item item) {
        at++;
        if (peek() == end) { at++; return; }
        for (item(); peek() == ','; item()) at++;
        expect(end);
    }
    std::string string() {
        std::string found;
        for (expect('"'); at < text.size() && text[at] != '"'; at++) {
            if (text[at] != '\\') { found += text[at]; continue; }
            switch (char escaped = text[++at]) {
            case 'n': found += '\n'; break;
            case 't': found += '\t'; break;
            case 'u': utf8(found, std::stoi(text.substr(at + 1, 4), nullptr, 16)); at += 4; break;
            default: found += escaped;
            }
        }
        expect('"');
        return found;
    }
    static void utf8(std::string& found, int code) {
        if (code < 0x80) { found += char(code); return; }
        if (code < 0x800) found += char(0xC0 | code >> 6);
        else { found += char(0xE0 | code >> 12); found += char(0x80 | (code >> 6 & 63)); }
        found += char(0x80 | (code & 63));
    }
};

std::string quoted(const std::string& text) {
    std::string found = "\"";
    for (char each : text) {
        if (each == '"' || each == '\\') found += '\\';
        found += (unsigned char)each < 32 ? ' ' : each;
    }
    return found + '"';
}

template <class Item> std::string listed(const std::vector<Item>& items) {
    std::ostringstream found;
    found << '[';
    for (size_t i = 0; i < items.size(); i++) found << (i ? "," : "") << items[i];
    found << ']';
    return found.str();
}

// -- safetensors: 8 bytes with the length of a JSON header, the header, then the bytes of all -------------------------

std::map<std::string, Bytes> read_storages(const std::string& path, const Json& announced) {
    std::map<std::string, Bytes> found;
    for (const std::string& name : announced.names) found[name];  // empty ones are not in the file
    std::ifstream file(path, std::ios::binary);
    uint64_t length = 0;
    if (!file.read((char*)&length, 8)) return found;
    std::string header(length, ' ');
    file.read(&header[0], length);
    Json about = Parser(header).value();
    for (size_t i = 0; i < about.names.size(); i++) {
        if (about.names[i] == "__metadata__") continue;
        Sizes offsets = about.items[i]["data_offsets"].sizes();
        Bytes& content = found[about.names[i]];
        content.resize(offsets[1] - offsets[0]);
        file.seekg(8 + length + offsets[0]);
        file.read(content.data(), content.size());
    }
    return found;
}

void write_storages(const std::string& path, const std::vector<Bytes>& contents) {
    std::ostringstream header;
    size_t from = 0;
    for (size_t i = 0; i < contents.size(); from += contents[i++].size()) {
        if (contents[i].empty()) continue;
        header << (from ? "," : "{") << "\"r" << i << "\":{\"dtype\":\"U8\",\"shape\":[" << contents[i].size()
               << "],\"data_offsets\":[" << from << ',' << from + contents[i].size() << "]}";
    }
    std::string text = from ? header.str() + '}' : "{}";
    uint64_t length = text.size();
    std::ofstream file(path, std::ios::binary);
    file.write((char*)&length, 8) << text;
    for (const Bytes& each : contents) file.write(each.data(), each.size());
}

// -- tensors ---------------------------------------------------------------------------------------------------------

int64_t product(const Sizes& sizes) {
    int64_t found = 1;
    for (int64_t each : sizes) found *= each;
    return found;
}

struct Tensor {
    std::string dtype;
    Sizes shape;
    std::vector<double> numbers;  // row by row, whatever the strides were

    template <class T> static Tensor read(const Json& about, const Bytes& storage) {
        Tensor tensor{about["dtype"].text, about["shape"].sizes(), {}};
        Sizes stride = about["stride"].sizes(), at(tensor.shape.size(), 0);
        const int64_t offset = int64_t(about["offset"].number);
        for (int64_t left = product(tensor.shape); left; left--) {
            int64_t place = offset;
            for (size_t axis = 0; axis < at.size(); axis++) place += at[axis] * stride[axis];
            T number;
            std::memcpy(&number, storage.data() + place * sizeof(T), sizeof(T));
            tensor.numbers.push_back(double(number));
            for (size_t axis = at.size(); axis-- && ++at[axis] == tensor.shape[axis];) at[axis] = 0;
        }
        return tensor;
    }
    template <class T> Bytes bytes() const {
        std::vector<T> rounded(numbers.begin(), numbers.end());
        return Bytes((const char*)rounded.data(), (const char*)(rounded.data() + rounded.size()));
    }
};

// -- the operation ---------------------------------------------------------------------------------------------------

std::string described(const Sizes& shape) { return listed(shape); }

void require(bool holds, const std::string& said) {
    if (!holds) throw std::invalid_argument(said);
}

// Everything between is double, so that each result is rounded once.
struct Attention {
    const Tensor &value, &shapes, &starts, &locations, &weights;
    int64_t B, S, M, D, Q, L, P;

    explicit Attention(const std::map<std::string, Tensor>& given)
        : value(given.at("value")), shapes(given.at("spatial_shapes")), starts(given.at("level_start_index")),
          locations(given.at("sampling_locations")), weights(given.at("attention_weights")) {
        require(value.shape.size() == 4, "value must be (batch, cell, head, channel), got " + described(value.shape));
        require(shapes.shape.size() == 2 && shapes.shape[1] == 2, "spatial_shapes must be (level, 2)");
        require(locations.shape.size() == 6 && locations.shape[5] == 2, "sampling_locations must have six axes");
        B = value.shape[0], S = value.shape[1], M = value.shape[2], D = value.shape[3];
        Q = locations.shape[1], L = shapes.shape[0], P = locations.shape[4];
        require(locations.shape == Sizes{B, Q, M, L, P, 2}, "sampling_locations " + described(locations.shape) +
                " disagree with value " + described(value.shape) + " and " + std::to_string(L) + " levels");
        require(weights.shape == Sizes{B, Q, M, L, P}, "attention_weights " + described(weights.shape) +
                " disagree with sampling_locations " + described(locations.shape));
        require(starts.shape == Sizes{L}, "level_start_index must be (level,), got " + described(starts.shape));
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
    std::map<std::string, Tensor> gradients(const Tensor& incoming) const {
        require(incoming.shape == Sizes{B, Q, M * D}, "the gradient of the output has not its shape");
        std::map<std::string, Tensor> found;
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

// -- a run: its tensors, its steps, its answer ------------------------------------------------------------------------

class Run {
public:
    explicit Run(const Json& message) : file(message["folder"].text + "/" + whole(message["id"])), id(whole(message["id"])) {
        auto storages = read_storages(file + ".in", message["storages"]);
        for (const Json& each : message["tensors"].items) {
            const Bytes& bytes = storages[each["storage"].text];
            const std::string dtype = each["dtype"].text, name = each["id"].text;
            if (dtype == "float32") tensors[name] = Tensor::read<float>(each, bytes);
            else if (dtype == "float64") tensors[name] = Tensor::read<double>(each, bytes);
            else if (dtype == "int64") tensors[name] = Tensor::read<int64_t>(each, bytes);
            else if (dtype == "int32") tensors[name] = Tensor::read<int32_t>(each, bytes);
            else throw Refused("no dtype " + dtype);
        }
        for (const Json& step : message["steps"].items) results.push_back(done(step, message["steps"].items));
    }

    std::string answer() {
        write_storages(file + ".out", contents);
        std::ostringstream sizes;
        for (size_t i = 0; i < contents.size(); i++) sizes << (i ? "," : "") << "\"r" << i << "\":" << contents[i].size();
        return "{\"message\":\"done\",\"id\":" + id + ",\"results\":" + listed(results) + ",\"tensors\":" +
               listed(descriptions) + ",\"storages\":{" + sizes.str() + "}}";
    }

    static std::string whole(const Json& number) { return std::to_string(int64_t(number.number)); }

private:
    std::string file, id;
    std::map<std::string, Tensor> tensors;
    std::vector<std::string> results, descriptions;
    std::vector<Bytes> contents;

    std::string done(const Json& step, const std::vector<Json>& steps) {
        if (step["do"].text == "call") return call(step);
        if (step["do"].text == "backward") return backward(step, steps.at(size_t(step["of"].number)));
        throw Refused("no step " + step["do"].text);
    }

    std::map<std::string, Tensor> arguments(const Json& step) {
        if (step["of"].text != "ms_deform_attn") throw Refused("no operation " + step["of"].text);
        std::map<std::string, Tensor> found;
        for (const Json& pair : step["arguments"]["dict"].items) found[pair.items[0].text] = tensor(pair.items[1]);
        return found;
    }

    const Tensor& tensor(const Json& coded) {
        if (!coded.find("tensor") || !tensors.count(coded["tensor"].text)) throw std::invalid_argument("not a tensor");
        return tensors[coded["tensor"].text];
    }

    std::string call(const Json& step) {
        const auto given = arguments(step);
        if (!step.find("times")) return returned(Attention(given).output());
        std::vector<std::string> several;
        for (int64_t i = 0; i < int64_t(step["times"].number); i++) several.push_back(returned(Attention(given).output()));
        return "{\"list\":" + listed(several) + "}";
    }

    std::string backward(const Json& step, const Json& of) {
        const auto given = arguments(of);
        const auto found = Attention(given).gradients(tensor(step["gradients"]["list"].items.at(0)));
        std::vector<std::string> wanted;
        for (const Json& input : step["inputs"]["list"].items)
            for (const Json& pair : of["arguments"]["dict"].items)
                if (pair.items[1]["tensor"].text == input["tensor"].text)
                    wanted.push_back(returned(found.at(pair.items[0].text)));
        return "{\"list\":" + listed(wanted) + "}";
    }

    std::string returned(const Tensor& tensor) {
        const std::string place = std::to_string(contents.size());
        Sizes stride(tensor.shape.size(), 1);
        for (size_t axis = stride.size(); axis-- > 1;) stride[axis - 1] = stride[axis] * tensor.shape[axis];
        contents.push_back(tensor.dtype == "float32" ? tensor.bytes<float>() : tensor.bytes<double>());
        descriptions.push_back("{\"id\":\"result" + place + "\",\"storage\":\"r" + place + "\",\"dtype\":" +
                               quoted(tensor.dtype) + ",\"shape\":" + listed(tensor.shape) + ",\"stride\":" +
                               listed(stride) + ",\"offset\":0}");
        return "{\"tensor\":\"result" + place + "\"}";
    }
};

std::string answered(const Json& message) {
    const std::string id = ",\"id\":" + Run::whole(message["id"]);
    try {
        return Run(message).answer();
    } catch (const Refused& error) {
        return "{\"message\":\"refused\"" + id + ",\"reason\":" + quoted(error.what()) + "}";
    } catch (const std::exception& error) {
        return "{\"message\":\"raised\"" + id + ",\"kind\":\"Error\",\"text\":" + quoted(error.what()) + "}";
    }
}

int main() {
    std::cout << R"({"message":"hello","protocol":1,"holds":false,"name":"cpp-runner","version":"1",)"
              << R"("operations":{"ms_deform_attn":null},"devices":["cpu"],"dtypes":["float32","float64"],)"
              << R"("features":["backward","deterministic"],"variants":{}})" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        const Json message = Parser(line).value();
        if (message["message"].text == "stop") return 0;
        std::cout << answered(message) << std::endl;
    }
}
