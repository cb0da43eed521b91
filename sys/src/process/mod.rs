//! Processes: making, naming, signalling, reaping and replacing them. See `clone3(2)`, `pidfd_open(2)`, `prctl(2)`.
mod attributes;
mod clone;
mod doorkeeper;
mod environment;
mod exec;
mod keyring;
mod pidfd;
mod placement;
mod stat;

pub use attributes::{
    IoClass, Scheduler, exit_now, set_child_subreaper, set_domainname, set_dumpable, set_hostname,
    set_io_priority, set_keep_caps, set_no_new_privs, set_parent_death_signal, set_personality,
    set_scheduler, set_scheduler_of, setsid, umask,
};
pub use clone::{Child, CloneArgs, Forked, clone3, fork};
pub use doorkeeper::{Birth, Doorkeeper};
pub use environment::forget_environment;
pub use exec::{
    block_all_signals, execve, execveat, ignore_signal, reset_signals, set_signal_mask,
};
pub use keyring::{Keyring, OTHER_SEARCH, OWNER_SEARCH, join_session_keyring};
pub use pidfd::{
    Exit, kill, peek_ended, pidfd_getfd, pidfd_open, pidfd_send_signal, reap_any, send_signal,
    wait, wait_any, wait_pid,
};
pub use placement::{affinity, reset_affinity, set_affinity, set_memory_policy};
pub use stat::{ProcessStat, start_time, stat};
