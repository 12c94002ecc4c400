/* A simulated libnvidia-ml.so.1: what gpubox may ask of NVML, answered from a text file.
 *
 * SIMULATED_NVML names the file, which lab/nvml.py writes; it is read anew at every nvmlInit.
 * There is no GPU and no driver behind it. Any call can be told to fail, by its own name. */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999
};
enum { TEXT = 96, DEVICES = 128, FAILURES = 16, PROCESSES = 64, LINE = 512 };
#define MEMORY_V2 0x02000028u

typedef unsigned long long bytes;

struct failure {
    char function[TEXT];
    int code;
};

struct process {
    unsigned pid;
    bytes memory;
    unsigned gpu_instance, compute_instance;
};

struct attributes {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpegs, ofas;
    unsigned gpu_slices, compute_slices;
    bytes memory_mb;
};

/* A GPU, or a MIG device with its GPU as `parent`. What a file does not tell is not supported. */
struct device {
    struct device *parent;
    unsigned index; /* among GPUs, or among its parent's MIG devices */
    char name[TEXT], uuid[TEXT];
    unsigned brand, domain, bus, slot;
    int major, minor;
    bool has_memory, has_utilization, has_temperature, has_mig;
    bytes total, used, reserved;
    unsigned gpu_percent, memory_percent, celsius, persistence;
    unsigned mig_now, mig_next, mig_most, gpu_instance, compute_instance;
    struct attributes attributes;
    struct process processes[PROCESSES];
    char kinds[PROCESSES][TEXT];
    unsigned process_count;
    struct failure failures[FAILURES];
    unsigned failure_count;
};

static struct {
    unsigned inits;
    char driver[TEXT], nvml[TEXT];
    int cuda;
    struct device devices[DEVICES]; /* each GPU, and behind it its MIG devices */
    unsigned device_count, gpu_count;
    struct failure failures[FAILURES];
    unsigned failure_count;
} machine;

/* --- the file: one word and its values a line; `gpu` and `mig` begin a device */

static struct device *begin(struct device *parent)
{
    struct device *device = &machine.devices[machine.device_count];

    if (machine.device_count++ == DEVICES)
        return NULL;
    device->parent = parent;
    if (!parent) {
        device->index = machine.gpu_count++;
    } else {
        for (struct device *other = parent + 1; other < device; other++)
            device->index++;
    }
    return device;
}

static bool read_failure(struct failure *failures, unsigned *count, const char *values)
{
    struct failure *failure = &failures[*count];

    return (*count)++ < FAILURES &&
           sscanf(values, "%95s %d", failure->function, &failure->code) == 2;
}

static bool read_process(struct device *device, const char *values)
{
    struct process *process = &device->processes[device->process_count];
    char *kind = device->kinds[device->process_count];

    return device->process_count++ < PROCESSES &&
           sscanf(values, "%95s %u %llu %u %u", kind, &process->pid, &process->memory,
                  &process->gpu_instance, &process->compute_instance) == 5;
}

static bool read_attributes(struct attributes *to, const char *values)
{
    return sscanf(values, "%u %u %u %u %u %u %u %u %llu", &to->multiprocessors,
                  &to->copy_engines, &to->decoders, &to->encoders, &to->jpegs, &to->ofas,
                  &to->gpu_slices, &to->compute_slices, &to->memory_mb) == 9;
}

static bool read_text(char *to, const char *values)
{
    return snprintf(to, TEXT, "%s", values) < TEXT;
}

static bool read_device(struct device *device, const char *word, const char *values)
{
#define IS(known) (!strcmp(word, known))
    if (IS("name"))
        return read_text(device->name, values);
    if (IS("uuid"))
        return read_text(device->uuid, values);
    if (IS("brand"))
        return sscanf(values, "%u", &device->brand) == 1;
    if (IS("capability"))
        return sscanf(values, "%d %d", &device->major, &device->minor) == 2;
    if (IS("bus"))
        return sscanf(values, "%x:%x:%x", &device->domain, &device->bus, &device->slot) == 3;
    if (IS("memory"))
        return device->has_memory =
                   sscanf(values, "%llu %llu %llu", &device->total, &device->used,
                          &device->reserved) == 3;
    if (IS("utilization"))
        return device->has_utilization =
                   sscanf(values, "%u %u", &device->gpu_percent, &device->memory_percent) == 2;
    if (IS("temperature"))
        return device->has_temperature = sscanf(values, "%u", &device->celsius) == 1;
    if (IS("persistence"))
        return sscanf(values, "%u", &device->persistence) == 1;
    if (IS("mig-mode"))
        return device->has_mig = sscanf(values, "%u %u %u", &device->mig_now,
                                        &device->mig_next, &device->mig_most) == 3;
    if (IS("instance"))
        return sscanf(values, "%u %u", &device->gpu_instance, &device->compute_instance) == 2;
    if (IS("attributes"))
        return read_attributes(&device->attributes, values);
    if (IS("process"))
        return read_process(device, values);
    if (IS("fail"))
        return read_failure(device->failures, &device->failure_count, values);
    return false;
}

static bool read_machine(const char *word, const char *values)
{
    if (IS("driver"))
        return read_text(machine.driver, values);
    if (IS("nvml"))
        return read_text(machine.nvml, values);
    if (IS("cuda"))
        return sscanf(values, "%d", &machine.cuda) == 1;
    if (IS("fail"))
        return read_failure(machine.failures, &machine.failure_count, values);
    return false;
#undef IS
}

static int read_file(void)
{
    const char *path = getenv("SIMULATED_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    struct device *gpu = NULL, *device = NULL;
    char line[LINE];
    int code = SUCCESS;

    if (!file)
        return DRIVER_NOT_LOADED;
    memset(&machine, 0, sizeof machine);
    while (code == SUCCESS && fgets(line, sizeof line, file)) {
        char *values = line + strcspn(line, " \n");
        bool good;

        line[strcspn(line, "\n")] = '\0';
        if (*values)
            *values++ = '\0';
        if (!strcmp(line, "gpu"))
            good = (gpu = device = begin(NULL));
        else if (!strcmp(line, "mig"))
            good = gpu && (device = begin(gpu));
        else
            good = device ? read_device(device, line, values) : read_machine(line, values);
        if (!good) {
            fprintf(stderr, "simulated NVML: cannot read '%s %s'\n", line, values);
            code = UNKNOWN;
        }
    }
    fclose(file);
    return code;
}

/* --- what every call begins with */

static int told(const struct failure *failures, unsigned count, const char *function)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(failures[i].function, function) || !strcmp(failures[i].function, "*"))
            return failures[i].code;
    return SUCCESS;
}

static int refusal(const char *function)
{
    if (!machine.inits)
        return UNINITIALIZED;
    return told(machine.failures, machine.failure_count, function);
}

static int refusal_of(const struct device *device, const char *function)
{
    int code = refusal(function);

    if (code)
        return code;
    if (device < machine.devices || device >= machine.devices + machine.device_count)
        return INVALID_ARGUMENT;
    if (device->parent &&
        (code = told(device->parent->failures, device->parent->failure_count, function)))
        return code;
    return told(device->failures, device->failure_count, function);
}

#define CALL(refused)            \
    do {                         \
        int code_ = (refused);   \
        if (code_)               \
            return code_;        \
    } while (0)
#define ASKED CALL(refusal(__func__))
#define ASKED_OF(device) CALL(refusal_of(device, __func__))
#define NEEDS(known)                \
    do {                            \
        if (!(known))               \
            return NOT_SUPPORTED;   \
    } while (0)

static int say(const char *text, char *to, unsigned length)
{
    if (strlen(text) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

/* --- the library itself */

static int init(void)
{
    unsigned inits = machine.inits;
    int code = read_file();

    machine.inits = inits;
    if (code || (code = told(machine.failures, machine.failure_count, "nvmlInit")))
        return code;
    machine.inits++;
    return SUCCESS;
}

int nvmlInit(void) { return init(); }
int nvmlInit_v2(void) { return init(); }

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    return init();
}

int nvmlShutdown(void)
{
    ASKED;
    machine.inits--;
    return SUCCESS;
}

const char *nvmlErrorString(int code)
{
    return code == SUCCESS ? "Success" : "an error of the simulated NVML";
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    ASKED;
    return say(machine.driver, version, length);
}

int nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
    ASKED;
    return say(machine.nvml, version, length);
}

int nvmlSystemGetCudaDriverVersion(int *version)
{
    ASKED;
    *version = machine.cuda;
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    ASKED;
    *version = machine.cuda;
    return SUCCESS;
}

/* --- which devices there are */

int nvmlDeviceGetCount_v2(unsigned *count)
{
    ASKED;
    *count = machine.gpu_count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **found)
{
    ASKED;
    for (struct device *device = machine.devices; device < machine.devices + machine.device_count;
         device++)
        if (!device->parent && device->index == index) {
            ASKED_OF(device);
            *found = device;
            return SUCCESS;
        }
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **found)
{
    ASKED;
    for (struct device *device = machine.devices; device < machine.devices + machine.device_count;
         device++)
        if (!strcmp(device->uuid, uuid)) {
            ASKED_OF(device);
            *found = device;
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *id, struct device **found)
{
    unsigned domain, bus, slot;

    ASKED;
    if (sscanf(id, "%x:%x:%x", &domain, &bus, &slot) != 3)
        return INVALID_ARGUMENT;
    for (struct device *device = machine.devices; device < machine.devices + machine.device_count;
         device++)
        if (!device->parent && device->domain == domain && device->bus == bus &&
            device->slot == slot) {
            ASKED_OF(device);
            *found = device;
            return SUCCESS;
        }
    return NOT_FOUND;
}

/* --- what a device is */

int nvmlDeviceGetIndex(struct device *device, unsigned *index)
{
    ASKED_OF(device);
    *index = device->index;
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(struct device *device, unsigned *minor)
{
    ASKED_OF(device);
    NEEDS(!device->parent);
    *minor = device->index;
    return SUCCESS;
}

int nvmlDeviceGetName(struct device *device, char *name, unsigned length)
{
    ASKED_OF(device);
    return say(device->name, name, length);
}

int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned length)
{
    ASKED_OF(device);
    return say(device->uuid, uuid, length);
}

int nvmlDeviceGetBrand(struct device *device, unsigned *brand)
{
    ASKED_OF(device);
    *brand = (device->parent ? device->parent : device)->brand;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(struct device *device, int *major, int *minor)
{
    ASKED_OF(device);
    const struct device *gpu = device->parent ? device->parent : device;
    NEEDS(gpu->major);
    *major = gpu->major;
    *minor = gpu->minor;
    return SUCCESS;
}

struct pci_v2 {
    char id[16];
    unsigned domain, bus, slot, device_id, subsystem_id, reserved[4];
};

struct pci_v3 {
    char id_v2[16];
    unsigned domain, bus, slot, device_id, subsystem_id;
    char id[32];
};

int nvmlDeviceGetPciInfo_v2(struct device *device, struct pci_v2 *pci)
{
    ASKED_OF(device);
    NEEDS(!device->parent);
    *pci = (struct pci_v2){.domain = device->domain, .bus = device->bus, .slot = device->slot};
    snprintf(pci->id, sizeof pci->id, "%04X:%02X:%02X.0", device->domain & 0xFFFF,
             device->bus & 0xFF, device->slot & 0xFF);
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(struct device *device, struct pci_v3 *pci)
{
    ASKED_OF(device);
    NEEDS(!device->parent);
    *pci = (struct pci_v3){.domain = device->domain, .bus = device->bus, .slot = device->slot};
    snprintf(pci->id_v2, sizeof pci->id_v2, "%04X:%02X:%02X.0", device->domain & 0xFFFF,
             device->bus & 0xFF, device->slot & 0xFF);
    snprintf(pci->id, sizeof pci->id, "%08X:%02X:%02X.0", device->domain, device->bus,
             device->slot);
    return SUCCESS;
}

/* --- what a device does */

struct memory_v1 {
    bytes total, free, used;
};

struct memory_v2 {
    unsigned version;
    bytes total, reserved, free, used;
};

int nvmlDeviceGetMemoryInfo(struct device *device, struct memory_v1 *memory)
{
    ASKED_OF(device);
    NEEDS(device->has_memory);
    memory->total = device->total;
    memory->used = device->used + device->reserved;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct memory_v2 *memory)
{
    ASKED_OF(device);
    NEEDS(device->has_memory);
    if (memory->version != MEMORY_V2)
        return ARGUMENT_VERSION_MISMATCH;
    memory->total = device->total;
    memory->reserved = device->reserved;
    memory->used = device->used;
    memory->free = memory->total - memory->used - memory->reserved;
    return SUCCESS;
}

struct utilization {
    unsigned gpu, memory;
};

int nvmlDeviceGetUtilizationRates(struct device *device, struct utilization *utilization)
{
    ASKED_OF(device);
    NEEDS(device->has_utilization && !device->mig_now); /* a partitioned GPU has none */
    utilization->gpu = device->gpu_percent;
    utilization->memory = device->memory_percent;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(struct device *device, unsigned sensor, unsigned *celsius)
{
    ASKED_OF(device);
    NEEDS(device->has_temperature && sensor == 0);
    *celsius = device->celsius;
    return SUCCESS;
}

struct temperature {
    unsigned version, sensor;
    int celsius;
};

int nvmlDeviceGetTemperatureV(struct device *device, struct temperature *temperature)
{
    ASKED_OF(device);
    NEEDS(device->has_temperature && temperature->sensor == 0);
    temperature->celsius = (int)device->celsius;
    return SUCCESS;
}

int nvmlDeviceGetPersistenceMode(struct device *device, unsigned *mode)
{
    ASKED_OF(device);
    NEEDS(!device->parent);
    *mode = device->persistence;
    return SUCCESS;
}

int nvmlDeviceGetComputeMode(struct device *device, unsigned *mode)
{
    ASKED_OF(device);
    *mode = 0;
    return SUCCESS;
}

/* Before the v2 calls a process had no instances: that struct is the beginning of this one. */
enum { PROCESS_V1 = 16, PROCESS_V2 = sizeof(struct process) };

static int list(const struct device *device, const char *kind, unsigned *room, void *into,
                size_t size)
{
    const struct device *gpu = device->parent ? device->parent : device;
    unsigned found = 0;

    for (unsigned i = 0; i < gpu->process_count; i++) {
        const struct process *process = &gpu->processes[i];
        if (strcmp(gpu->kinds[i], kind) ||
            (device->parent && (process->gpu_instance != device->gpu_instance ||
                                process->compute_instance != device->compute_instance)))
            continue;
        if (found < *room && into)
            memcpy((char *)into + found * size, process, size);
        found++;
    }
    bool fits = found <= *room;
    *room = found;
    return fits ? SUCCESS : INSUFFICIENT_SIZE;
}

#define PROCESSES_OF(function, kind, size)                                  \
    int function(struct device *device, unsigned *count, void *processes)   \
    {                                                                       \
        ASKED_OF(device);                                                   \
        return list(device, kind, count, processes, size);                  \
    }

PROCESSES_OF(nvmlDeviceGetComputeRunningProcesses, "compute", PROCESS_V1)
PROCESSES_OF(nvmlDeviceGetComputeRunningProcesses_v2, "compute", PROCESS_V2)
PROCESSES_OF(nvmlDeviceGetComputeRunningProcesses_v3, "compute", PROCESS_V2)
PROCESSES_OF(nvmlDeviceGetGraphicsRunningProcesses, "graphics", PROCESS_V1)
PROCESSES_OF(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics", PROCESS_V2)
PROCESSES_OF(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics", PROCESS_V2)
PROCESSES_OF(nvmlDeviceGetMPSComputeRunningProcesses, "mps", PROCESS_V1)
PROCESSES_OF(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps", PROCESS_V2)
PROCESSES_OF(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps", PROCESS_V2)

/* --- MIG */

int nvmlDeviceIsMigDeviceHandle(struct device *device, unsigned *is)
{
    ASKED_OF(device);
    *is = device->parent != NULL;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(struct device *device, unsigned *now, unsigned *next)
{
    ASKED_OF(device);
    NEEDS(device->has_mig);
    *now = device->mig_now;
    *next = device->mig_next;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *device, unsigned *count)
{
    ASKED_OF(device);
    *count = device->mig_now ? device->mig_most : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, unsigned index,
                                        struct device **found)
{
    ASKED_OF(device);
    NEEDS(device->has_mig);
    if (index >= device->mig_most)
        return INVALID_ARGUMENT;
    for (struct device *mig = device + 1; mig < machine.devices + machine.device_count; mig++)
        if (mig->parent == device && mig->index == index) {
            *found = mig;
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(struct device *mig, struct device **found)
{
    ASKED_OF(mig);
    if (!mig->parent)
        return INVALID_ARGUMENT;
    *found = mig->parent;
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(struct device *mig, unsigned *id)
{
    ASKED_OF(mig);
    NEEDS(mig->parent);
    *id = mig->gpu_instance;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(struct device *mig, unsigned *id)
{
    ASKED_OF(mig);
    NEEDS(mig->parent);
    *id = mig->compute_instance;
    return SUCCESS;
}

int nvmlDeviceGetAttributes_v2(struct device *device, struct attributes *attributes)
{
    ASKED_OF(device);
    NEEDS(device->parent);
    *attributes = device->attributes;
    return SUCCESS;
}

int nvmlDeviceGetAttributes(struct device *device, struct attributes *attributes)
{
    return nvmlDeviceGetAttributes_v2(device, attributes);
}
