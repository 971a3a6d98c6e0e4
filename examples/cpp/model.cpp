// Loads and checks the network, and feeds it pictures: the only file that needs PyTorch.
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/cuda.h>
#include <torch/script.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "vision.h"

namespace vision {
namespace {

using nlohmann::json;

// Largest error on the golden example, relative to its largest value: enough for the kernels of
// another device, not for a damaged file.
constexpr double kTolerance = 1e-3;

torch::Device choose(const std::string& device) {
  if (device == "cpu" || (device == "auto" && !torch::cuda::is_available())) {
    return torch::kCPU;
  }
  if (!torch::cuda::is_available()) {
    throw Unusable("PyTorch finds no GPU that it can use: take --device cpu");
  }
  return torch::kCUDA;
}

at::Tensor tensor_of(std::string raw, const json& shape) {
  const auto sizes = shape.get<std::vector<int64_t>>();
  const int64_t samples = static_cast<int64_t>(raw.size() / sizeof(float));
  return torch::from_blob(raw.data(), {samples}, torch::kFloat32).clone().view(sizes);
}

// Three values of the specification, for broadcasting over (N, 3, H, W).
at::Tensor per_channel(const json& values) {
  return torch::tensor(values.get<std::vector<float>>()).view({3, 1, 1});
}

// The picture resized and cropped as the specification says, (1, 3, H, W) float32.
at::Tensor to_input(const json& spec, const Picture& picture, int64_t shorter) {
  const int64_t from = std::min(picture.width, picture.height);
  const int64_t other = std::max(picture.width, picture.height);
  const int64_t multiple = spec.at("multiple");
  int64_t longer = shorter * other / from;
  if (multiple != 1) {
    // nearbyint rounds halves to even, as Python's round() does.
    const double exact = double(shorter) * double(other) / double(from);
    longer = std::max(int64_t(std::nearbyint(exact / double(multiple))) * multiple, shorter);
  }
  const bool upright = picture.width <= picture.height;
  const int64_t width = upright ? shorter : longer, height = upright ? longer : shorter;

  // On uint8 PyTorch resizes in two rounded passes, like Pillow and the server; on floats every
  // sixth sample would be one step off.
  auto* samples = const_cast<unsigned char*>(picture.samples.data());
  auto pixels = torch::from_blob(samples, {1, picture.height, picture.width, 3}, torch::kUInt8);
  pixels = pixels.permute({0, 3, 1, 2});
  pixels = spec.at("interpolation") == "bicubic"
               ? at::_upsample_bicubic2d_aa(pixels, {height, width}, false)
               : at::_upsample_bilinear2d_aa(pixels, {height, width}, false);
  if (!spec.at("crop").is_null()) {
    const int64_t crop = spec.at("crop");
    const auto top = int64_t(std::nearbyint(double(height - crop) / 2));
    const auto left = int64_t(std::nearbyint(double(width - crop) / 2));
    pixels = pixels.narrow(2, top, crop).narrow(3, left, crop);
  }
  return (pixels.to(torch::kFloat32) / 255 - per_channel(spec.at("mean"))) /
         per_channel(spec.at("std"));
}

// The readable line of a PyTorch error: the first, or the last of an interpreter's trace.
std::string gist(const std::string& message) {
  std::istringstream lines(message);
  std::string first, last;
  for (std::string line; std::getline(lines, line);) {
    first = first.empty() ? line : first;
    last = line.empty() ? last : line;
  }
  return first.find("in the TorchScript interpreter") == std::string::npos ? first : last;
}

// work()'s result. Whatever it throws becomes Unusable.
template <typename Work>
auto explained(const std::string& what, Work work) {
  try {
    return work();
  } catch (const Unusable&) {
    throw;
  } catch (const c10::Error& error) {
    throw Unusable(what + ": " + gist(error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw Unusable(what + ": " + gist(error.what()));
  }
}

using Network = std::function<at::Tensor(const at::Tensor&)>;

// A network on its device, and what its file says of it.
struct Loaded {
  Network network;
  std::string about;                        // JSON
  std::string golden_input, golden_output;  // float32, little-endian
};

// A .pt: TorchScript.
Loaded load_script(const std::string& path, torch::Device device) {
  torch::jit::ExtraFilesMap extra{
      {"model.json", ""}, {"golden_input.f32", ""}, {"golden_output.f32", ""}};
  auto script = torch::jit::load(path, torch::kCPU, extra);
  script.to(device);
  const auto network = [script](const at::Tensor& input) mutable {
    return script.forward({input}).toTensor();
  };
  return {network, extra.at("model.json"), extra.at("golden_input.f32"),
          extra.at("golden_output.f32")};
}

std::string from_base64(const std::string& text) {
  static const std::string digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string raw;
  unsigned bits = 0;
  int count = 0;
  for (const char character : text.substr(0, text.find('='))) {
    bits = bits << 6 | unsigned(digits.find(character));
    if ((count += 6) >= 8) {
      raw.push_back(char(bits >> (count -= 8)));
    }
  }
  return raw;
}

// An .aoti.pt2: compiled for the CPU.
Loaded load_compiled(const std::string& path) {
  const auto package = std::make_shared<torch::inductor::AOTIModelPackageLoader>(path);
  const auto metadata = package->get_metadata();
  // Compiled code takes its input as it was exported, in C order, and does not check that.
  const auto network = [package](const at::Tensor& input) {
    return package->run({input.contiguous()}).at(0);
  };
  return {network, metadata.at("model.json"), from_base64(metadata.at("golden_input.f32.base64")),
          from_base64(metadata.at("golden_output.f32.base64"))};
}

}  // namespace

struct Model::Parts {
  Network network;
  torch::Device device;
  json about;

  at::Tensor operator()(const at::Tensor& input) {
    return network(input.to(device)).cpu();
  }
};

Model::Model(const std::string& path, const std::string& output, const std::string& device) {
  const bool compiled = path.ends_with(".aoti.pt2");
  if (compiled && device == "cuda") {
    throw Unusable(path + " is compiled for the CPU: take --device cpu, or the .pt");
  }
  const torch::Device on = compiled ? torch::kCPU : choose(device);
  if (!std::filesystem::is_regular_file(path)) {
    throw Unusable(path + ": there is no such file");
  }
  // float32 means float32: a GPU's convolutions would otherwise take TF32.
  at::globalContext().setAllowTF32CuDNN(false);
  const std::string what = compiled ? "an AOTInductor package for this machine" : "a TorchScript file";
  const Loaded loaded = explained(path + " is not " + what + ", or is damaged", [&] {
    return compiled ? load_compiled(path) : load_script(path, on);
  });
  const double off = explained(path + " cannot be checked", [&] {
    const c10::InferenceMode inference;
    const json about = json::parse(loaded.about);
    parts_ = std::make_unique<Parts>(Parts{loaded.network, on, about});
    const json& golden = about.at("golden");
    const auto example = tensor_of(loaded.golden_input, golden.at("input_shape"));
    const auto expected = tensor_of(loaded.golden_output, golden.at("output_shape"));
    const auto answer = (*parts_)(example);
    return ((answer - expected).abs().max() / expected.abs().max()).item<double>();
  });
  if (!(off <= kTolerance)) {  // NaN too
    throw Unusable(path + " misses its golden example on " + on.str() + ": relative error " +
                   std::to_string(off) + "; the file or the device is faulty");
  }
  const std::string gives = parts_->about.at("spec").at("output");
  if (gives != output) {
    throw Unusable(path + " gives " + gives + ", this program needs " + output);
  }
}

Model::~Model() = default;

std::vector<Prediction> Model::classify(const Picture& picture, int top_k) {
  return explained("the picture cannot be classified", [&] {
    const c10::InferenceMode inference;
    const json& spec = parts_->about.at("spec");
    const auto logits = (*parts_)(to_input(spec, picture, spec.at("resize")))[0];
    const auto& labels = spec.at("labels");
    const int64_t k = std::min<int64_t>(top_k, int64_t(labels.size()));
    const auto [probabilities, classes] = logits.softmax(0).topk(k);
    std::vector<Prediction> best;
    for (int64_t i = 0; i < k; ++i) {
      best.push_back({labels.at(classes[i].item<int64_t>()), probabilities[i].item<float>()});
    }
    return best;
  });
}

Picture Model::translate(const Picture& picture, int size) {
  return explained("the picture cannot be translated", [&] {
    const c10::InferenceMode inference;
    const json& spec = parts_->about.at("spec");
    const int64_t multiple = spec.at("multiple");
    if (size % multiple != 0) {
      throw Unusable("the size must be a multiple of " + std::to_string(multiple));
    }
    const int64_t shorter = size ? size : spec.at("resize").get<int64_t>();
    const auto output = (*parts_)(to_input(spec, picture, shorter))[0];
    const double low = spec.at("output_range").at(0), high = spec.at("output_range").at(1);
    const auto scaled = (output - low) / (high - low) * 255;
    const auto levels = scaled.round().clamp(0, 255).to(torch::kUInt8);
    const auto rows = levels.permute({1, 2, 0}).contiguous();
    const auto* first = rows.data_ptr<unsigned char>();
    return Picture{int(rows.size(1)), int(rows.size(0)), {first, first + rows.numel()}};
  });
}

std::string Model::description() const {
  return parts_->about.at("weights").at("name").get<std::string>() + " weights on " +
         parts_->device.str();
}

}  // namespace vision
