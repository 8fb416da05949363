// The stand-in's compiler: CUDA C is compiled as C++ for the host, and what is handed back as a GPU's code names the
// library made.
//
// The texts include host.hpp where `__CUDACC__` is not defined: it is taken from the folder that build.sh gives, or
// that the environment variable STANDIN_SOURCE names. The compiler is $CXX, or c++. What was made is removed at exit.

#include "standin.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <vector>

extern char **environ;

enum Status { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6, INTERNAL = 11 };

struct Program {
    std::string source, log, code;
};

typedef std::vector<std::string> Words;

// Never taken down, since programs may be compiled until the process ends.
struct State {
    std::mutex mutex;
    Words folders;
    std::map<std::string, std::string> compiled;  // code by options and source
};
static State &state = *new State;

// Runs a command with its output in a file, and gives its exit status.
static int run(const Words &words, const std::string &output) {
    std::vector<char *> arguments;
    for (auto &word : words) arguments.push_back(const_cast<char *>(word.c_str()));
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t child;
    int status = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (status) {
        std::ofstream(output) << arguments[0] << ": " << strerror(status) << "\n";
        return -1;
    }
    return waitpid(child, &status, 0) == child ? status : -1;
}

// Picks the options that define macros. What nvrtc would not know is an error, as it is there; what it knows has no
// meaning here.
static bool pick(int count, const char *const *options, Words &defines, std::string &log) {
    static const char *const known[] = {
        "gpu-architecture=", "arch=", "std=", "fmad=", "ftz=", "prec-sqrt=", "prec-div=", "use_fast_math",
        "extra-device-vectorization", "maxrregcount=", "include-path=", "generate-line-info", "lineinfo",
        "device-debug", "restrict", "disable-warnings", "default-device", "device-as-default-execution-space",
        "ptxas-options=", "split-compile=", "minimal", "relocatable-device-code=", "rdc=",
    };
    for (int i = 0; i < count; i++) {
        std::string option = options[i];
        for (const char *define : {"--define-macro=", "-D="}) {
            if (!option.compare(0, strlen(define), define)) option = "-D" + option.substr(strlen(define));
        }
        if ((option == "-D" || option == "--define-macro") && i + 1 < count) option = std::string("-D") + options[++i];
        if (!option.compare(0, 2, "-D") && option.size() > 2) {
            defines.push_back(option);
            continue;
        }
        const std::string name = option.substr(std::min(option.find_first_not_of('-'), option.size()));
        bool found = !option.compare(0, 2, "-I");
        for (const char *start : known) found |= !name.compare(0, strlen(start), start);
        if (!found) {
            log = "unrecognized option " + option + " found\n";
            return false;
        }
    }
    return true;
}

static std::string text_of(const std::string &path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

static Status compile(Program &program, const Words &defines) {
    std::string folder = std::filesystem::temp_directory_path() / "standin-XXXXXX";
    if (!mkdtemp(folder.data())) return INTERNAL;
    {
        std::lock_guard<std::mutex> guard(state.mutex);
        state.folders.push_back(folder);
    }
    const std::string source = folder + "/kernels.cu", made = folder + "/kernels.so";
    std::ofstream(source) << program.source;
    const char *compiler = getenv("CXX"), *host = getenv("STANDIN_SOURCE");
    Words words;
    // more than one word, as make takes it
    std::istringstream several(compiler && *compiler ? compiler : "c++");
    for (std::string word; several >> word;) words.push_back(word);
    words.insert(words.end(), {"-std=c++17", "-O2", "-shared", "-fPIC", "-x", "c++"});
    words.insert(words.end(), {std::string("-I") + (host ? host : SOURCE), source, "-o", made});
    words.insert(words.end(), defines.begin(), defines.end());
    const int status = run(words, folder + "/log");
    program.log = text_of(folder + "/log");
    if (status) return COMPILATION;
    program.code = MADE_HERE + made + "\n";
    return SUCCESS;
}

API Status nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, SUCCESS; }
API const char *nvrtcGetErrorString(int status) {
    switch (status) {
    case SUCCESS: return "NVRTC_SUCCESS";
    case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case COMPILATION: return "NVRTC_ERROR_COMPILATION";
    default: return "NVRTC_ERROR_INTERNAL_ERROR";
    }
}

API Status nvrtcCreateProgram(Program **program, const char *source, const char *, int headers, const char *const *,
                              const char *const *) {
    if (!source || headers) {
        say("nvrtcCreateProgram: no source, or headers beside it");
        return INVALID_INPUT;
    }
    return *program = new Program{source, "", ""}, SUCCESS;
}
API Status nvrtcDestroyProgram(Program **program) {
    if (!*program) return INVALID_PROGRAM;
    delete *program;
    return *program = nullptr, SUCCESS;
}
API Status nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    if (!program) return INVALID_PROGRAM;
    Words defines;
    if (!pick(count, options, defines, program->log)) return INVALID_OPTION;
    std::string key;
    for (auto &define : defines) key += define + "\n";
    key += program->source;
    {
        std::lock_guard<std::mutex> guard(state.mutex);
        auto found = state.compiled.find(key);
        if (found != state.compiled.end()) return program->code = found->second, SUCCESS;
    }
    const Status status = compile(*program, defines);
    std::lock_guard<std::mutex> guard(state.mutex);
    if (status == SUCCESS) state.compiled[key] = program->code;
    return status;
}

// Sizes are with the 0 at the end.
static Status size_of(const std::string &text, size_t *size) { return *size = text.size() + 1, SUCCESS; }
static Status copy(const std::string &text, char *to) { return memcpy(to, text.c_str(), text.size() + 1), SUCCESS; }
API Status nvrtcGetCUBINSize(Program *program, size_t *size) {
    return !program || program->code.empty() ? INVALID_PROGRAM : size_of(program->code, size);
}
API Status nvrtcGetCUBIN(Program *program, char *to) {
    return !program || program->code.empty() ? INVALID_PROGRAM : copy(program->code, to);
}
API Status nvrtcGetProgramLogSize(Program *program, size_t *size) {
    return program ? size_of(program->log, size) : INVALID_PROGRAM;
}
API Status nvrtcGetProgramLog(Program *program, char *to) {
    return program ? copy(program->log, to) : INVALID_PROGRAM;
}

__attribute__((destructor)) static void clean() {
    std::error_code none;
    for (auto &folder : state.folders) std::filesystem::remove_all(folder, none);
}
