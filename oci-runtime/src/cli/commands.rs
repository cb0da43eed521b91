//! The commands and their flags: what is accepted, and what the help says about it.
use super::flags::Flag;

/// One command.
#[derive(Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its operands.
    pub operands: &'static str,
    /// How many operands it takes at least and at most.
    pub count: (usize, usize),
    /// Whether it makes processes in containers that run already. (`create`, `run` and `exec` see to it by their plan.)
    pub makes_processes: bool,
    /// What it does, in one line.
    pub about: &'static str,
    /// What else there is to know.
    pub details: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
}

/// Flags before the command.
pub const GLOBAL: &[Flag] = &[
    Flag::value(
        "root",
        "DIR",
        "where the state of containers is kept (default: /run/davit-oci, or $XDG_RUNTIME_DIR/davit-oci without privileges)",
    ),
    Flag::value(
        "log",
        "FILE",
        "also write the error of a failed command to FILE; or to syslog:NAME or journald:NAME",
    ),
    Flag::value(
        "log-format",
        "FORMAT",
        "the format of that file: text (default) or json",
    ),
    Flag::switch("debug", "also write warnings to the log"),
    Flag::value(
        "rootless",
        "WHEN",
        "ignore what only a privileged user may do: true, false or auto (default)",
    ),
    Flag::switch(
        "systemd-cgroup",
        "have systemd make cgroups: linux.cgroupsPath is then \"slice:prefix:name\"",
    ),
    Flag::value(
        "cgroup-manager",
        "NAME",
        "who makes cgroups: cgroupfs (default), systemd, or disabled for none at all",
    ),
    Flag::value("criu", "PATH", "ignored, for compatibility"),
    Flag::switch("help", "show this help").short('h'),
    Flag::switch(
        "version",
        "show the versions of the program and of the spec",
    )
    .short('v'),
];

const BUNDLE: Flag = Flag::value(
    "bundle",
    "DIR",
    "the directory with config.json (default: the current one)",
)
.short('b');
const CONFIG: Flag = Flag::value(
    "config",
    "FILE",
    "the configuration, instead of the bundle's config.json",
)
.short('f');
const CONSOLE: Flag = Flag::value(
    "console-socket",
    "SOCKET",
    "a unix socket that gets the master of the terminal",
);
const PIDFD: Flag = Flag::value(
    "pidfd-socket",
    "SOCKET",
    "a unix socket that gets a descriptor of the process",
);
const PID_FILE: Flag = Flag::value("pid-file", "FILE", "write the id of the process to FILE");
const PRESERVE: Flag = Flag::value(
    "preserve-fds",
    "N",
    "pass N more descriptors, from 3 on, after those of $LISTEN_FDS",
);
const NO_PIVOT: Flag = Flag::switch(
    "no-pivot",
    "use chroot instead of pivot_root: for a host whose root is a ramdisk",
);
const NO_KEYRING: Flag = Flag::switch("no-new-keyring", "keep the session keyring of the caller");
const REGEX: Flag = Flag::switch(
    "regex",
    "take ID for a regular expression: all containers whose id it is found in",
)
.short('r');
const HELP: Flag = Flag::switch("help", "show this help").short('h');
const IMAGES: Flag = Flag::value(
    "image-path",
    "DIR",
    "the directory of the images (default: checkpoint)",
);
const WORK: Flag = Flag::value(
    "work-path",
    "DIR",
    "where criu works and writes its log (default: with the images)",
);
const TCP: Flag = Flag::switch("tcp-established", "allow open TCP connections");
const UNIX: Flag = Flag::switch(
    "ext-unix-sk",
    "allow unix sockets that are connected to the outside",
);
const SHELL: Flag = Flag::switch("shell-job", "allow a terminal of the outside");
const LAZY: Flag = Flag::switch(
    "lazy-pages",
    "fetch memory when it is used, with userfaultfd",
);
const LOCKS: Flag = Flag::switch("file-locks", "allow file locks");
const CGROUPS: Flag = Flag::value(
    "manage-cgroups-mode",
    "MODE",
    "what to do with cgroups: soft (default), full, strict or ignore",
);
const EMPTY: Flag = Flag::value(
    "empty-ns",
    "KIND",
    "make this namespace without what was in it: network",
);
const DEDUP: Flag = Flag::switch(
    "auto-dedup",
    "punch out of the parent's images what the new ones have",
);

/// All commands, in the order of a container's life.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "create",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "create a container and leave it waiting for \"start\"",
        details: "The container is made from DIR/config.json; everything but its program is done when this returns.\n\
                  If it fails, nothing is left behind.",
        flags: &[BUNDLE, CONFIG, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE, HELP],
    },
    Command {
        name: "start",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "run the program of a created container",
        details: "",
        flags: &[HELP],
    },
    Command {
        name: "run",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "create a container, run it and wait for its end",
        details: "Ends with the exit code of the container's program, or 128 and the number of the signal that ended it.\n\
                  Signals are passed on to the program.",
        flags: &[
            BUNDLE,
            CONFIG,
            CONSOLE,
            PIDFD,
            PID_FILE,
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE,
            Flag::switch("detach", "return once the program runs").short('d'),
            Flag::switch("keep", "do not delete the container at its end"),
            Flag::switch("no-subreaper", "do not adopt the orphans of the container"),
            HELP,
        ],
    },
    Command {
        name: "state",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "show the state of a container as JSON",
        details: "",
        flags: &[HELP],
    },
    Command {
        name: "kill",
        operands: "ID [SIGNAL]",
        count: (1, 2),
        makes_processes: false,
        about: "send a signal to a container's program",
        details: "SIGNAL is a number or a name, with or without SIG in front; SIGTERM where it is left out.",
        flags: &[Flag::switch("all", "send it to every process of the container").short('a'), REGEX, HELP],
    },
    Command {
        name: "delete",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "delete a container that has ended",
        details: "",
        flags: &[
            Flag::switch("force", "end it with SIGKILL first; a container that does not exist is no error").short('f'),
            REGEX,
            HELP,
        ],
    },
    Command {
        name: "exec",
        operands: "ID [COMMAND [ARGUMENT...]]",
        count: (1, usize::MAX),
        makes_processes: false,
        about: "run another program in a running container",
        details: "Without --process the program runs as config.json says of the container's own, with COMMAND instead.\n\
                  Ends with the exit code of the program; with 255 where it could not be started.",
        flags: &[
            CONSOLE,
            PIDFD,
            Flag::value("cwd", "DIR", "its working directory"),
            Flag::value("env", "NAME=VALUE", "one more environment variable; may be repeated").short('e'),
            Flag::switch("tty", "give it a terminal").short('t'),
            Flag::value("user", "UID[:GID]", "its user and group").short('u'),
            Flag::value("additional-gids", "GID", "one more group; may be repeated").short('g'),
            Flag::value("process", "FILE", "a file with the \"process\" object of a config.json").short('p'),
            Flag::switch("detach", "return once the program runs").short('d'),
            PID_FILE,
            Flag::value("process-label", "LABEL", "its SELinux label"),
            Flag::value("apparmor", "PROFILE", "its AppArmor profile"),
            Flag::switch("no-new-privs", "its programs may not gain rights"),
            Flag::value("cap", "CAP", "one more capability; may be repeated").short('c'),
            PRESERVE,
            Flag::value("cgroup", "[CONTROLLERS:]PATH", "run it in this cgroup below the container's; may be repeated with other controllers"),
            Flag::switch("ignore-paused", "do not refuse a paused container"),
            HELP,
        ],
    },
    Command {
        name: "pause",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "stop every process of a container where it stands",
        details: "",
        flags: &[HELP],
    },
    Command {
        name: "resume",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "let the processes of a paused container go on",
        details: "",
        flags: &[HELP],
    },
    Command {
        name: "checkpoint",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "save a running container to disk, with criu",
        details: "The container ends and is deleted, unless it is left running.",
        flags: &[
            IMAGES,
            WORK,
            Flag::value("parent-path", "DIR", "the images of an earlier pre-dump, relative to those of this one"),
            Flag::switch("leave-running", "let the container go on"),
            TCP,
            Flag::switch("tcp-skip-in-flight", "leave out TCP connections that are not established yet"),
            Flag::switch("link-remap", "allow files that have been deleted but still have another name"),
            UNIX,
            SHELL,
            LAZY,
            Flag::value("status-fd", "N", "descriptor that gets a zero byte once the memory can be fetched"),
            Flag::value("page-server", "ADDRESS:PORT", "send the memory to this page server"),
            LOCKS,
            Flag::switch("pre-dump", "save the memory only, and let the container go on"),
            CGROUPS,
            EMPTY,
            DEDUP,
            Flag::value("network-lock", "METHOD", "how to lock the network: iptables (default), nftables or skip"),
            HELP,
        ],
    },
    Command {
        name: "restore",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "make a container from a checkpoint, with criu",
        details: "Waits for the end of the container and ends with its exit code, as \"run\" does.",
        flags: &[
            CONSOLE,
            IMAGES,
            WORK,
            TCP,
            Flag::switch("tcp-close", "close TCP connections"),
            UNIX,
            SHELL,
            LOCKS,
            CGROUPS,
            BUNDLE,
            CONFIG,
            Flag::switch("detach", "return once the program runs").short('d'),
            PID_FILE,
            Flag::switch("no-subreaper", "do not adopt the orphans of the container"),
            NO_PIVOT,
            EMPTY,
            DEDUP,
            LAZY,
            Flag::value("lsm-profile", "TYPE:NAME", "another profile of apparmor or selinux for the processes"),
            Flag::value("lsm-mount-context", "CONTEXT", "another SELinux context for the mounts"),
            HELP,
        ],
    },
    Command {
        name: "ps",
        operands: "ID [OPTION...]",
        count: (1, usize::MAX),
        makes_processes: false,
        about: "list the processes of a container",
        details: "OPTIONs are those of ps(1), -ef without any; its output must have a column PID.",
        flags: &[
            Flag::value("format", "FORMAT", "table (default), or json for the ids alone").short('f'),
            HELP,
        ],
    },
    Command {
        name: "events",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "show what a container uses and when it runs out of memory, as JSON lines",
        details: "Ends with the container's cgroup.",
        flags: &[
            Flag::value("interval", "DURATION", "how often to show statistics, such as 500ms or 1m30s (default: 5s)"),
            Flag::switch("stats", "show the statistics once"),
            HELP,
        ],
    },
    Command {
        name: "list",
        operands: "",
        count: (0, 0),
        makes_processes: false,
        about: "list the containers",
        details: "",
        flags: &[
            Flag::value("format", "FORMAT", "table (default) or json").short('f'),
            Flag::switch("quiet", "only the ids").short('q'),
            HELP,
        ],
    },
    Command {
        name: "update",
        operands: "ID",
        count: (1, 1),
        makes_processes: false,
        about: "change the limits of a container",
        details: "SIZE is a number of bytes, or one with a unit such as 512m or 1.5g; -1 takes the limit away.",
        flags: &[
            Flag::value("resources", "FILE", "a file with the \"resources\" object of a config.json, - for stdin; then no other flag counts").short('r'),
            Flag::value("cpu-period", "US", "the period of the CPU quota, in microseconds"),
            Flag::value("cpu-quota", "US", "microseconds of CPU time per period; -1 takes the limit away"),
            Flag::value("cpu-burst", "US", "microseconds of unused quota that may be saved up"),
            Flag::value("cpu-share", "N", "weight against other containers"),
            Flag::value("cpu-rt-period", "US", "the period of the realtime quota (cgroup v1)"),
            Flag::value("cpu-rt-runtime", "US", "microseconds of realtime per period (cgroup v1)"),
            Flag::value("cpuset-cpus", "LIST", "the CPUs to use, such as 0-3,7"),
            Flag::value("cpuset-mems", "LIST", "the memory nodes to use"),
            Flag::value("cpu-idle", "0|1", "run only when nobody else wants the CPU"),
            Flag::value("memory", "SIZE", "the memory limit"),
            Flag::value("memory-reservation", "SIZE", "the soft memory limit"),
            Flag::value("memory-swap", "SIZE", "the limit of memory and swap together"),
            Flag::value("pids-limit", "N", "the limit of processes; -1 takes it away"),
            Flag::value("kernel-memory", "SIZE", "ignored: the kernel has dropped it"),
            Flag::value("kernel-memory-tcp", "SIZE", "ignored: the kernel has dropped it"),
            Flag::value("blkio-weight", "N", "weight of disk accesses against other containers, 10 to 1000"),
            Flag::value("l3-cache-schema", "TEXT", "shares of the L3 cache, such as L3:0=f;1=ff (needs linux.intelRdt)"),
            Flag::value("mem-bw-schema", "TEXT", "shares of memory bandwidth, such as MB:0=20;1=70 (needs linux.intelRdt)"),
            HELP,
        ],
    },
    Command {
        name: "mounts",
        operands: "add|remove ID FILE",
        count: (3, 3),
        makes_processes: true,
        about: "add mounts to a running container, or remove them",
        details: "FILE (- for stdin) holds an array of mounts, as \"mounts\" of config.json does.\n\
                  Mounts are removed in reverse order, by their destinations.",
        flags: &[HELP],
    },
    Command {
        name: "spec",
        operands: "",
        count: (0, 0),
        makes_processes: false,
        about: "write a config.json to start from",
        details: "",
        flags: &[
            Flag::value("bundle", "DIR", "where to write it (default: the current directory)").short('b'),
            Flag::switch("rootless", "for a user without privileges"),
            HELP,
        ],
    },
    Command {
        name: "features",
        operands: "",
        count: (0, 0),
        makes_processes: false,
        about: "show what this runtime supports, as JSON",
        details: "The format is that of the runtime spec, features.md.",
        flags: &[HELP],
    },
    Command {
        name: "completion",
        operands: "SHELL",
        count: (1, 1),
        makes_processes: false,
        about: "write the completion script of a shell: bash, zsh or fish",
        details: "",
        flags: &[HELP],
    },
    Command {
        name: "man",
        operands: "",
        count: (0, 0),
        makes_processes: false,
        about: "write the manual page, for man(1)",
        details: "",
        flags: &[HELP],
    },
];
