// The protocol of runners without torch: JSON, safetensors, tensors, and the messages of one that holds nothing.
// It reads what the judge sends, and nothing else that could come.

#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
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

struct Json {  // null, true and false are numbers here
    double number = 0;
    std::string text;
    std::vector<std::string> names;  // of an object
    std::vector<Json> items;         // of a list, and what stands under the names

    const Json* find(const std::string& name) const {
        for (size_t i = 0; i < names.size(); i++) if (names[i] == name) return &items[i];
        return nullptr;
    }
    const Json& operator[](const std::string& name) const {
        if (const Json* found = find(name)) return *found;
        throw Refused("the message lacks " + name);
    }
    int64_t whole() const { return int64_t(number); }
    Sizes sizes() const {
        Sizes found;
        for (const Json& each : items) found.push_back(each.whole());
        return found;
    }
};

class Parser {
public:
    explicit Parser(const std::string& source) : text(source) {}

    Json value() {
        Json found;
        size_t used = 0;
        if (peek() == '{')
            each('}', [&] { found.names.push_back(string()), expect(':'), found.items.push_back(value()); });
        else if (peek() == '[') each(']', [&] { found.items.push_back(value()); });
        else if (peek() == '"') found.text = string();
        else if (std::isalpha(peek())) for (found.number = peek() == 't'; std::isalpha(text[at]);) at++;
        else found.number = std::stod(text.substr(at, 40), &used), at += used;
        return found;
    }

private:
    const std::string& text;
    size_t at = 0;

    unsigned char peek() {
        while (at < text.size() && std::isspace((unsigned char)text[at])) at++;
        return at < text.size() ? (unsigned char)text[at] : 0;
    }
    void expect(char wanted) {
        if (peek() != (unsigned char)wanted) throw std::runtime_error(std::string("no JSON: expected ") + wanted);
        at++;
    }
    template <class Item> void each(char end, Item item) {
        at++;
        if (peek() != (unsigned char)end) for (item(); peek() == ','; item()) at++;
        expect(end);
    }
    std::string string() {
        std::string found;
        for (expect('"'); at < text.size() && text[at] != '"'; at++) {
            if (text[at] != '\\') found += text[at];
            else if (text[++at] != 'u') found += text[at] == 'n' ? '\n' : text[at] == 't' ? '\t' : text[at];
            else {  // as UTF-8
                const int code = std::stoi(text.substr(at + 1, 4), nullptr, 16);
                if (code >= 0x800) found += char(0xE0 | code >> 12), found += char(0x80 | (code >> 6 & 63));
                else if (code >= 0x80) found += char(0xC0 | code >> 6);
                found += char(code < 0x80 ? code : 0x80 | (code & 63));
                at += 4;
            }
        }
        expect('"');
        return found;
    }
};

inline std::string quoted(const std::string& text) {
    std::string found = "\"";
    for (char each : text) found += each == '"' || each == '\\' || (unsigned char)each < 32 ? '\'' : each;
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

inline std::map<std::string, Bytes> read_storages(const std::string& path, const Json& announced) {
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

inline void write_storages(const std::string& path, const std::vector<Bytes>& contents) {
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

struct Tensor {
    std::string dtype;
    Sizes shape;
    std::vector<double> numbers;  // row by row, whatever the strides were

    template <class T> static Tensor read(const Json& about, const Bytes& storage) {
        Tensor tensor{about["dtype"].text, about["shape"].sizes(), {}};
        Sizes stride = about["stride"].sizes(), at(tensor.shape.size(), 0);
        const int64_t offset = about["offset"].whole();
        int64_t left = 1;
        for (int64_t size : tensor.shape) left *= size;
        for (; left; left--) {
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

// -- a run: its tensors, its steps, its answer ------------------------------------------------------------------------

using Arguments = std::map<std::string, Tensor>;

struct Operation {
    std::function<Tensor(const Arguments&)> call;
    std::function<Arguments(const Arguments&, const Tensor& incoming)> gradients;  // by the name of the argument
};

class Run {
public:
    Run(const std::map<std::string, Operation>& operations, const Json& message)
        : operations(operations), id(std::to_string(message["id"].whole())), file(message["folder"].text + "/" + id) {
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
        for (size_t i = 0; i < contents.size(); i++)
            sizes << (i ? "," : "") << "\"r" << i << "\":" << contents[i].size();
        return "{\"message\":\"done\",\"id\":" + id + ",\"results\":" + listed(results) + ",\"tensors\":" +
               listed(descriptions) + ",\"storages\":{" + sizes.str() + "}}";
    }

private:
    const std::map<std::string, Operation>& operations;
    const std::string id, file;
    Arguments tensors;
    std::vector<std::string> results, descriptions;
    std::vector<Bytes> contents;

    std::string done(const Json& step, const std::vector<Json>& steps) {
        if (step["do"].text == "call") return call(step);
        if (step["do"].text == "backward") return backward(step, steps.at(size_t(step["of"].whole())));
        throw Refused("no step " + step["do"].text);
    }

    const Operation& operation(const Json& step) {
        if (!operations.count(step["of"].text)) throw Refused("no operation " + step["of"].text);
        return operations.at(step["of"].text);
    }

    Arguments arguments(const Json& step) {
        Arguments found;
        for (const Json& pair : step["arguments"]["dict"].items) found[pair.items[0].text] = tensor(pair.items[1]);
        return found;
    }

    const Tensor& tensor(const Json& coded) {
        if (!coded.find("tensor") || !tensors.count(coded["tensor"].text)) throw std::invalid_argument("not a tensor");
        return tensors[coded["tensor"].text];
    }

    std::string call(const Json& step) {
        const Operation& callee = operation(step);
        const Arguments given = arguments(step);
        if (!step.find("times")) return returned(callee.call(given));
        std::vector<std::string> several;
        for (int64_t left = step["times"].whole(); left; left--) several.push_back(returned(callee.call(given)));
        return "{\"list\":" + listed(several) + "}";
    }

    std::string backward(const Json& step, const Json& of) {
        const Tensor& incoming = tensor(step["gradients"]["list"].items.at(0));
        const Arguments found = operation(of).gradients(arguments(of), incoming);
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

inline std::string answered(const std::map<std::string, Operation>& operations, const Json& message) {
    const std::string id = ",\"id\":" + std::to_string(message["id"].whole());
    try {
        return Run(operations, message).answer();
    } catch (const Refused& error) {
        return "{\"message\":\"refused\"" + id + ",\"reason\":" + quoted(error.what()) + "}";
    } catch (const std::exception& error) {
        return "{\"message\":\"raised\"" + id + ",\"kind\":\"Error\",\"text\":" + quoted(error.what()) + "}";
    }
}

// Answers one message after another, until the judge says stop.
inline int serve(const std::string& hello, const std::map<std::string, Operation>& operations) {
    std::cout << hello << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        const Json message = Parser(line).value();
        if (message["message"].text == "stop") break;
        std::cout << answered(operations, message) << std::endl;
    }
    return 0;
}
