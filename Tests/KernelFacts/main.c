// What Baton relies on from the kernel, one fact each, tried on the kernel that runs. Scripts/kernels builds it and
// runs it, here and in guests.
//
//   kernel-facts [--slow-disk FILE [--procs FILE]] [FACT...]
//
// A line for each fact: the verdict, its name, what was found. The exit status is 1 if one that Baton relies on does
// not hold.
#include "facts.h"

static const struct fact {
    const char *name;
    struct finding (*find)(struct place);
    bool is_needed;
    const char *sentence;
} facts[] = {
    {"journal", journal, true, "a dead submitter's completions say exactly what has happened"},
    {"adoption", adoption, true, "another program takes over a ring, its files and its buffers"},
    {"orphans", orphans, true, "a dead submitter's writes go on landing, and complete in its ring"},
    {"fence", fence, true, "a lock is free only when the last of them has landed"},
    {"duplicated-lock", duplicated_lock, true, "a lock whose open file somebody else has does not fall"},
    {"sentinel", sentinel, true, "a robust mutex tells of a death"},
    {"restrictions", restrictions, true, "a ring keeps its restrictions over its owners"},
    {"armed-polls", armed_polls, true, "a dead submitter's poll never completes by itself"},
    {"single-issuer", orphans_single_issuer, false, "with SINGLE_ISSUER a successor can reap and not submit"},
    {"defer-taskrun", orphans_deferred, false, "with DEFER_TASKRUN a dead submitter's completions never come"},
    {"transport", transport, true, "a ring travels by pidfd_getfd"},
    {"discard-command", discard_command, false, "DISCARD of a block device on a ring"},
    {"fixed-fd-install", fixed_fd_install, false, "a direct descriptor becomes an ordinary one"},
    {"direct-alignment", direct_alignment, false, "statx tells what O_DIRECT asks for"},
};
enum { FACTS = sizeof facts / sizeof *facts };

static bool is_wanted(const char *name, char **names) {
    if (!*names) return true;
    for (; *names; names++)
        if (strcmp(*names, name) == 0) return true;
    return false;
}

int main(int argc, char **argv) {
    static const char *const verdicts[] = {"holds", "FAILS", "lacks", "not-tried"};
    struct place place = {0};
    int next = 1, status = 0;
    if (argc == 5 && strcmp(argv[1], "successor") == 0) return successor(argv + 2);
    for (; next + 1 < argc && strncmp(argv[next], "--", 2) == 0; next += 2) {
        if (strcmp(argv[next], "--slow-disk") == 0) place.slow_disk = argv[next + 1];
        else if (strcmp(argv[next], "--procs") == 0) place.procs = argv[next + 1];
        else break;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < FACTS; i++) {
        if (!is_wanted(facts[i].name, argv + next)) continue;
        struct finding finding = facts[i].find(place);
        if (finding.verdict == FAILS || (finding.verdict == LACKS && facts[i].is_needed)) status = 1;
        printf("%-9s %-16s %s: %s\n", verdicts[finding.verdict], facts[i].name, facts[i].sentence, finding.text);
    }
    return status;
}
