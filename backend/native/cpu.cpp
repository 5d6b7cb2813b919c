// Which kernels this CPU can run.
#include <stdexcept>
#include <string>
#include <vector>

#include "ring.h"

namespace he {

namespace {

struct Level {
    const char* name;
    bool runs;
    const Kernels& (*kernels)();
};

std::vector<Level> all_levels() {
    std::vector<Level> levels = {{"scalar", true, scalar_kernels}};
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    const bool ifma = avx512 && __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vnni");
    levels.push_back({"avx2", avx2, avx2_kernels});
    levels.push_back({"avx512", avx512, avx512_kernels});
    levels.push_back({"ifma", ifma, ifma_kernels});
#endif
    return levels;
}

}  // namespace

std::vector<std::string> kernel_levels() {
    std::vector<std::string> names;
    for (const Level& level : all_levels())
        if (level.runs) names.emplace_back(level.name);
    return names;
}

const Kernels& select_kernels(const std::string& wanted) {
    const std::vector<Level> levels = all_levels();
    const Level* best = nullptr;
    std::string names;
    for (const Level& level : levels) {
        if (!level.runs) continue;
        names += std::string(names.empty() ? "" : ", ") + level.name;
        if (wanted == "auto" || wanted == level.name) best = &level;
    }
    if (!best) throw std::invalid_argument("CPU level '" + wanted + "' is not available here; available: auto, " + names);
    return best->kernels();
}

}  // namespace he
