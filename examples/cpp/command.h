// The command line of both programs: arguments, messages, exit statuses.
#pragma once

#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

// Thrown to print the usage and exit with status 2.
struct Usage {};

// The whole number in `text`. Throws Usage if it is not one, or less than `least`.
inline int number(const std::string& text, int least) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end || value < least || value > 1000000) {
    throw Usage{};
  }
  return int(value);
}

// Runs work(arguments, device) with `least` to `most` arguments. Returns the exit status: 1 after
// an exception, whose message is printed.
template <typename Work>
int command(int argc, char** argv, const char* usage, size_t least, size_t most, Work work) {
  try {
    std::vector<std::string> arguments;
    std::string device = "auto";
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      if (argument != "--device") {
        arguments.push_back(argument);
      } else if (++i < argc) {
        device = argv[i];
      } else {
        throw Usage{};
      }
    }
    const bool known = device == "auto" || device == "cpu" || device == "cuda";
    if (!known || arguments.size() < least || arguments.size() > most) {
      throw Usage{};
    }
    work(arguments, device);
    return 0;
  } catch (const Usage&) {
    std::cerr << "usage: " << usage << " [--device auto|cpu|cuda]\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
