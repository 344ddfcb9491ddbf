/* Looks at all vCPUs of all guests at each interval, and keeps what it saw: the observer's eye.
 *
 * Each look reads the stat file (proc(5)) of every vCPU's thread, which stays open; of one that slept only if its
 * schedstat, which the kernel writes much faster, has changed: that counts each time that a thread gets a core. A
 * violation is a vCPU that has run on core 0 or 1, or vCPUs of two processes that both want to run on one core while
 * libvirt says that both guests run (QEMU prepares the vCPUs of a guest that is being launched, too). The files are
 * read one after the other, so both are read again before that is said: a hand-over in between is none. The first vCPU
 * of a guest always computes while it runs.
 *
 * Argument: the interval in microseconds, which looks have on average where there is time for that. Commands come on
 * stdin, a line each: "vcpu GUEST PID TID NUMBER" for each one that there is, then "go" to look at these and no
 * others; "report", which is answered by lines "looks COUNT SECONDS", "guest NAME RAN LONGEST-WAIT" (seconds),
 * "violation TEXT" and "end". It ends at the end of stdin.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXITING = 4 }; /* PF_EXITING of the flags in proc(5)'s stat: include/linux/sched.h */
enum { MOST = 1024, CORES = 4096, SAID = 1000, HEAD = 4096, MOST_BEHIND = 10 };

struct guest { char name[128]; double ran, longest, last; };
struct vcpu { int guest, pid, tid, number, file, fast, wanted; char before[64]; };
struct stat_line { int wants, core; };

static struct guest guests[MOST];
static struct vcpu present[MOST], coming[MOST];
static char *violations[SAID];
static int guest_count, present_count, coming_count, violation_count;
static long looks;
static double began, last;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void violated(const char *guest, const char *what, int number, int core)
{
    if (violation_count == SAID)
        return;
    if (asprintf(&violations[violation_count++], "%s: %s %d, core %d", guest, what, number, core) < 0)
        exit(3);
}

/* What the kernel says of a thread now; one that has ended wants nothing, nor does one that is ending: whoever is killed
 * runs no guest any more, but frees its memory after it has hung up, which takes a tenth of a second here. */
static struct stat_line look_at(const struct vcpu *vcpu)
{
    char text[1024], *at;
    struct stat_line none = {0, -1};
    ssize_t length = pread(vcpu->file, text, sizeof text - 1, 0);
    if (length <= 0)
        return none;
    text[length] = 0;
    at = strrchr(text, ')');
    if (!at || at[1] != ' ' || at[2] != 'R')
        return none;
    for (int field = 3; field < 39 && at; field++) {
        at = strchr(at + 2, ' ') ? strchr(at + 2, ' ') - 1 : NULL;
        if (at && field + 1 == 9 && strtoul(at + 2, NULL, 10) & EXITING)
            return none;
    }
    return at ? (struct stat_line){1, atoi(at + 2)} : none;
}

/* Whether a thread that slept has had no core since it was looked at; what is new is kept before its stat is read. */
static int slept_on(struct vcpu *vcpu)
{
    char text[sizeof vcpu->before] = "";
    if (vcpu->wanted) {
        memset(vcpu->before, 0, sizeof vcpu->before);
        return 0;
    }
    if (vcpu->fast < 0 || pread(vcpu->fast, text, sizeof text - 1, 0) <= 0 || !memcmp(text, "0 0 0", 5))
        return 0; /* there is no such file, or the kernel does not count */
    if (!memcmp(text, vcpu->before, sizeof text))
        return 1;
    memcpy(vcpu->before, text, sizeof text);
    return 0;
}

/* Whether libvirt's status file says that a guest's process runs. */
static int runs(const struct vcpu *vcpu)
{
    static const char *const folders[] = {"/run/orchestrator/libvirt/run/qemu", "/run/libvirt/qemu"};
    char path[256], mark[64], text[HEAD + 1];
    snprintf(mark, sizeof mark, "pid='%d'", vcpu->pid);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s.xml", folders[i], guests[vcpu->guest].name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0)
            continue;
        ssize_t length = read(file, text, HEAD);
        close(file);
        if (length <= 0)
            continue;
        text[length] = 0;
        if (strstr(text, mark) && strstr(text, "<domstatus state='running'"))
            return 1;
    }
    return 0;
}

static int same(struct stat_line one, struct stat_line other)
{
    return one.wants == other.wants && one.core == other.core;
}

static void look(void)
{
    static int seen[CORES]; /* who wants each core, counted from 1 */
    double moment = now(), elapsed = moment - last;
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < present_count; i++) {
        struct vcpu *vcpu = &present[i];
        struct guest *guest = &guests[vcpu->guest];
        if (slept_on(vcpu))
            continue;
        struct stat_line stat = look_at(vcpu);
        vcpu->wanted = stat.wants;
        if (!stat.wants)
            continue;
        if (vcpu->number == 0) {
            double waited = moment - guest->last - elapsed;
            guest->longest = waited > guest->longest ? waited : guest->longest;
            guest->ran += elapsed;
            guest->last = moment;
        }
        if (stat.core < 0 || stat.core >= CORES)
            continue;
        if (stat.core < 2)
            violated(guest->name, "ran with vCPU", vcpu->number, stat.core);
        if (!seen[stat.core]) {
            seen[stat.core] = i + 1;
            continue;
        }
        struct vcpu *other = &present[seen[stat.core] - 1];
        if (other->pid != vcpu->pid && runs(other) && runs(vcpu) && same(look_at(other), stat) && same(look_at(vcpu), stat))
            violated(guest->name, "wants what another has, vCPU", vcpu->number, stat.core);
    }
    last = moment;
    looks++;
}

static int guest_of(const char *name)
{
    for (int i = 0; i < guest_count; i++)
        if (!strcmp(guests[i].name, name))
            return i;
    if (guest_count == MOST)
        exit(3);
    snprintf(guests[guest_count].name, sizeof guests[0].name, "%s", name);
    guests[guest_count].last = now();
    return guest_count++;
}

static void take_in(const char *line)
{
    struct vcpu vcpu = {0};
    char name[128], path[64];
    if (coming_count == MOST || sscanf(line, "vcpu %127s %d %d %d", name, &vcpu.pid, &vcpu.tid, &vcpu.number) != 4)
        exit(3);
    vcpu.guest = guest_of(name);
    for (int i = 0; i < present_count; i++)
        if (present[i].file >= 0 && present[i].pid == vcpu.pid && present[i].tid == vcpu.tid) {
            coming[coming_count++] = present[i];
            present[i].file = -1;
            return;
        }
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", vcpu.pid, vcpu.tid);
    vcpu.file = open(path, O_RDONLY | O_CLOEXEC);
    if (vcpu.file < 0) /* it has ended */
        return;
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", vcpu.pid, vcpu.tid);
    vcpu.fast = open(path, O_RDONLY | O_CLOEXEC);
    vcpu.wanted = 1;
    coming[coming_count++] = vcpu;
}

static void go(void)
{
    for (int i = 0; i < present_count; i++)
        if (present[i].file >= 0) {
            close(present[i].file);
            if (present[i].fast >= 0)
                close(present[i].fast);
        }
    memcpy(present, coming, sizeof present);
    present_count = coming_count;
    coming_count = 0;
}

static void report(void)
{
    printf("looks %ld %f\n", looks, last - began);
    for (int i = 0; i < guest_count; i++)
        printf("guest %s %f %f\n", guests[i].name, guests[i].ran, guests[i].longest);
    for (int i = 0; i < violation_count; i++)
        printf("violation %s\n", violations[i]);
    puts("end");
    fflush(stdout);
}

static void obey(char *line)
{
    if (!strcmp(line, "go"))
        go();
    else if (!strcmp(line, "report"))
        report();
    else
        take_in(line);
}

/* Obey what was read; the beginning of a line waits for the rest of it. */
static void hear(void)
{
    static char text[65536];
    static size_t length;
    ssize_t more = read(0, text + length, sizeof text - length - 1);
    if (more <= 0)
        exit(0);
    length += more;
    text[length] = 0;
    char *line = text, *end;
    for (; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        obey(line);
    }
    length -= line - text;
    memmove(text, line, length);
}

int main(int count, char **arguments)
{
    cpu_set_t core;
    if (count != 2)
        return 2;
    double interval = atof(arguments[1]) / 1e6;
    CPU_ZERO(&core);
    CPU_SET(1, &core);
    sched_setaffinity(0, sizeof core, &core);
    began = last = now();
    for (double next = began;;) {
        next += interval; /* not from now on: one that is late is followed by one that is early */
        if (next < now() - MOST_BEHIND * interval)
            next = now();
        look();
        for (double left; (left = next - now()) > 0;) {
            struct pollfd input = {0, POLLIN, 0};
            struct timespec rest = {(time_t)left, (long)((left - (time_t)left) * 1e9)};
            if (ppoll(&input, 1, &rest, NULL) > 0)
                hear();
        }
        struct pollfd input = {0, POLLIN, 0}; /* however late it is */
        while (poll(&input, 1, 0) > 0)
            hear();
    }
}
