//! A program of a few instructions that waits at a gate and then becomes another program.
//!
//! A container's first process waits for `start` with everything done. If it waited as the runtime itself, the
//! runtime's file would be what `/proc/1/exe` means in the container: readable for its processes, and a danger where
//! it is writable (CVE-2019-5736); its memory would count against the container's limit. As the doorkeeper it has one
//! page of instructions in a sealed memfd and nothing of the runtime: no file, no memory, no descriptor.
//!
//! The ELF file is put together here from the instructions below and what they need to know. Its arguments are the
//! path of the program and the program's own arguments; its environment is the program's.
#![allow(unsafe_code)]
use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::error::{Error, Result, errno_name};

/// Where the file is mapped; any low address will do for a program without libraries.
const BASE: u64 = 0x40_0000;
const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const CODE_AT: usize = ELF_HEADER + 2 * PROGRAM_HEADER;
/// Bytes of the parameters at the end of the code.
const PARAMETERS: usize = 56;

/// Reasons for which the last `execve(2)` of a file that was there a moment ago can fail.
const REASONS: [Errno; 9] = [
    Errno::ENOENT,
    Errno::EACCES,
    Errno::ENOEXEC,
    Errno::EPERM,
    Errno::ENOMEM,
    Errno::E2BIG,
    Errno::ELOOP,
    Errno::ETXTBSY,
    Errno::EINVAL,
];

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    r#"
    .pushsection .rodata.davit_doorkeeper, "a", @progbits
    .balign 16
    .globl davit_doorkeeper_start
    .hidden davit_doorkeeper_start
    .globl davit_doorkeeper_end
    .hidden davit_doorkeeper_end
davit_doorkeeper_start:
    mov r12, rsp                                # argc, argv..., NULL, envp..., NULL
    mov rbx, [rsp]
    sub rsp, 128
    test byte ptr [rip + 55f], 1                # is somebody to be born first?
    jz 20f
    mov eax, 56                                 # clone(CLONE_PARENT): a sibling, on a copy of this stack
    mov edi, 0x8000
    xor esi, esi
    xor edx, edx
    xor r10d, r10d
    xor r8d, r8d
    syscall
    test rax, rax
    jz 10f
    mov byte ptr [rsp], 80                      # write(gate, "P" and the id or the errno, 5), exit_group(0)
    mov dword ptr [rsp + 1], eax
    mov eax, 1
    mov edi, dword ptr [rip + 50f]
    mov rsi, rsp
    mov edx, 5
    syscall
    mov eax, 231
    xor edi, edi
    syscall
10: mov eax, 112                                # setsid()
    syscall
    test byte ptr [rip + 55f], 2
    jz 11f
    mov eax, 16                                 # ioctl(0, TIOCSCTTY, 0)
    xor edi, edi
    mov esi, 0x540e
    xor edx, edx
    syscall
    mov r14, qword ptr [rip + 53f]
    test rax, rax
    jnz 35f
11: mov byte ptr [rsp], 107                     # write(gate, "k", 1)
    mov eax, 1
    mov edi, dword ptr [rip + 50f]
    mov rsi, rsp
    mov edx, 1
    syscall
20: xor eax, eax                                # read(gate, a byte of the stack, 1)
    mov edi, dword ptr [rip + 50f]
    mov rsi, rsp
    mov edx, 1
    syscall
    cmp rax, -4                                 # EINTR
    je 20b
    cmp rax, 1
    jne 40f
    mov eax, 72                                 # fcntl(gate, F_SETFD, FD_CLOEXEC): its end is the program's start
    mov edi, dword ptr [rip + 50f]
    mov esi, 2
    mov edx, 1
    syscall
    cmp word ptr [rip + 52f], 0
    je 30f
    mov eax, 317                                # seccomp(SECCOMP_SET_MODE_FILTER, flags, program)
    mov edi, 1
    mov esi, dword ptr [rip + 51f]
    lea rdx, [rip + 52f]
    syscall
    mov r14, qword ptr [rip + 54f]
    test rax, rax
    jnz 35f
30: mov eax, 59                                 # execve(argv[0], argv + 1, envp)
    mov rdi, [r12 + 8]
    lea rsi, [r12 + 16]
    lea rdx, [r12 + rbx*8 + 16]
    syscall
    mov r14, qword ptr [rip + 53f]
35: neg eax                                     # the entry of this error, or the last
36: mov ecx, dword ptr [r14]
    test ecx, ecx
    jz 37f
    cmp ecx, eax
    je 37f
    add r14, 16
    jmp 36b
37: mov eax, 1                                  # write(2 or the gate, its text)
    mov edi, dword ptr [rip + 56f]
    mov edx, dword ptr [r14 + 4]
    mov rsi, qword ptr [r14 + 8]
    syscall
40: mov eax, 231                                # exit_group(1 or 255)
    mov edi, dword ptr [rip + 57f]
    syscall
    ud2
    .balign 8
50: .long 0                                     # the gate
51: .long 0                                     # flags of the filter
52: .short 0                                    # struct sock_fprog: the filter
    .balign 8
    .quad 0
53: .quad 0                                     # texts for execve
54: .quad 0                                     # texts for seccomp
55: .long 0                                     # 1: be born first, 2: with a terminal
56: .long 0                                     # where a failure is told
57: .long 0                                     # the exit code of a failure
    .long 0
davit_doorkeeper_end:
    .popsection
    "#
);

#[cfg(target_arch = "x86_64")]
fn code() -> &'static [u8] {
    unsafe extern "C" {
        static davit_doorkeeper_start: u8;
        static davit_doorkeeper_end: u8;
    }
    let (start, end) = (
        &raw const davit_doorkeeper_start,
        &raw const davit_doorkeeper_end,
    );
    // SAFETY: both symbols delimit the block above, in this order, in one read-only section that is never unmapped.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// What the doorkeeper does once the gate opens.
#[derive(Debug, Clone, Copy)]
pub struct Doorkeeper<'a> {
    /// The gate: one byte read from it opens it. Closed when the program starts.
    pub gate: i32,
    /// A seccomp filter to load last: instructions of 8 bytes (`struct sock_filter`), and flags of `seccomp(2)`.
    pub filter: Option<(&'a [u8], u32)>,
    /// What a failure is reported with in front, on descriptor 2.
    pub prefix: &'a str,
    /// Whether the doorkeeper's first act is to give birth to a sibling that takes its place.
    pub birth: Option<Birth>,
}

/// How the doorkeeper of a process that joins a pid namespace comes into it: the last process outside makes it, and
/// nothing but this page is ever inside. The gate is then a connection to the parent, and carries
/// - from the process that stays outside, and ends: `P` and the new one's id, or the negative errno, as four bytes;
/// - from the new one, once it has a session of its own: `k`; or later `f`, a text and a NUL byte.
#[derive(Debug, Clone, Copy)]
pub struct Birth {
    /// Whether descriptor 0 becomes the controlling terminal.
    pub terminal: bool,
}

// === impl Doorkeeper ===

impl Doorkeeper<'_> {
    /// Whether there is one for this processor.
    pub const AVAILABLE: bool = cfg!(target_arch = "x86_64");

    /// The file that the doorkeeper will be, still empty. Made early, since a host may forbid it
    /// (`vm.memfd_noexec`), and then another way must be taken.
    ///
    /// # Errors
    /// `EACCES` where it is forbidden; `ENOSYS` on a processor without a doorkeeper.
    pub fn file() -> Result<OwnedFd> {
        if cfg!(target_arch = "x86_64") {
            crate::fd::memfd(c"davit-oci")
        } else {
            Err(Error::new(
                Errno::ENOSYS,
                "the doorkeeper is not written for this processor",
            ))
        }
    }

    /// Writes the doorkeeper into a [`Doorkeeper::file`], for good.
    ///
    /// # Errors
    /// `ENOMEM`; `ENOSYS` on a processor without a doorkeeper.
    pub fn fill(&self, file: &OwnedFd) -> Result<()> {
        crate::fd::fill_and_seal(file, &self.image()?)
    }

    /// Becomes the doorkeeper of `program`, from a filled file. Returns only to say why not.
    pub fn take_over(
        file: &OwnedFd,
        program: &CString,
        argv: &[CString],
        env: &[CString],
    ) -> Error {
        let mut all = Vec::with_capacity(argv.len() + 1);
        all.push(program.clone());
        all.extend_from_slice(argv);
        crate::process::execveat(file, &all, env)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn image(&self) -> Result<Vec<u8>> {
        Err(Error::new(
            Errno::ENOSYS,
            "the doorkeeper is not written for this processor",
        ))
    }

    /// The file: headers, code with its parameters, texts, filter.
    #[cfg(target_arch = "x86_64")]
    fn image(&self) -> Result<Vec<u8>> {
        let code = code();
        let mut image = vec![0_u8; CODE_AT];
        image.extend_from_slice(code);
        let parameters = image.len() - PARAMETERS;
        let exec_texts = self.put_texts(&mut image, "");
        let filter_texts = self.put_texts(&mut image, "loading the seccomp filter: ");
        let (filter, flags) = self.filter.unwrap_or((&[], 0));
        let filter_at = address(image.len());
        let count = u16::try_from(filter.len() / 8).map_err(|_| {
            Error::new(
                Errno::E2BIG,
                "a seccomp filter of more than 65535 instructions",
            )
        })?;
        image.extend_from_slice(filter);
        let mut put = |at: usize, bytes: &[u8]| {
            image[parameters + at..parameters + at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &self.gate.to_le_bytes());
        put(4, &flags.to_le_bytes());
        put(8, &count.to_le_bytes());
        put(16, &filter_at.to_le_bytes());
        put(24, &exec_texts.to_le_bytes());
        put(32, &filter_texts.to_le_bytes());
        let mode = self
            .birth
            .map_or(0, |birth| 1 | u32::from(birth.terminal) << 1);
        let (told_on, code) = self.birth.map_or((2, 1), |_| (self.gate, 255_u32));
        put(40, &mode.to_le_bytes());
        put(44, &told_on.to_le_bytes());
        put(48, &code.to_le_bytes());
        put_headers(&mut image);
        Ok(image)
    }

    /// Appends the texts and the table of them (errno, length, address; 0 for any other errno). Returns its address.
    #[cfg(target_arch = "x86_64")]
    fn put_texts(&self, image: &mut Vec<u8>, what: &str) -> u64 {
        let mut table = Vec::with_capacity(16 * (REASONS.len() + 1));
        for errno in REASONS.into_iter().map(Some).chain([None]) {
            let reason = errno.map_or_else(
                || "cannot be started".to_owned(),
                |errno| format!("{} ({})", errno.desc().to_lowercase(), errno_name(errno)),
            );
            let text = match self.birth {
                None => format!("{}{what}{reason}\n", self.prefix),
                Some(_) => format!("f{}{what}{reason}\0", self.prefix),
            };
            // A text is some hundred bytes: its prefix is a file's name, and names end at 4096.
            let length = u32::try_from(text.len()).unwrap_or(0);
            table.extend_from_slice(&errno.map_or(0, |errno| errno as i32).to_le_bytes());
            table.extend_from_slice(&length.to_le_bytes());
            table.extend_from_slice(&address(image.len()).to_le_bytes());
            image.extend_from_slice(text.as_bytes());
        }
        image.resize(image.len().next_multiple_of(8), 0);
        let at = address(image.len());
        image.extend_from_slice(&table);
        at
    }
}

/// The address of an offset in the file.
#[cfg(target_arch = "x86_64")]
fn address(offset: usize) -> u64 {
    BASE + offset as u64
}

/// elf(5): a static program, one segment that is read and executed, and a stack that is not executed.
#[cfg(target_arch = "x86_64")]
fn put_headers(image: &mut [u8]) {
    const LOAD: u32 = 1;
    const GNU_STACK: u32 = 0x6474_e551;
    const READ_EXECUTE: u32 = 5;
    const READ_WRITE: u32 = 6;
    let size = image.len() as u64;
    let mut header = Vec::with_capacity(CODE_AT);
    header.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    header.extend([2_u16, 62].iter().flat_map(|half| half.to_le_bytes())); // ET_EXEC, EM_X86_64
    header.extend(1_u32.to_le_bytes());
    header.extend(
        [address(CODE_AT), ELF_HEADER as u64, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes()),
    );
    header.extend(0_u32.to_le_bytes());
    header.extend(
        [64_u16, 56, 2, 0, 0, 0]
            .iter()
            .flat_map(|half| half.to_le_bytes()),
    );
    for (kind, flags, at, size, align) in [
        (LOAD, READ_EXECUTE, BASE, size, 0x1000_u64),
        (GNU_STACK, READ_WRITE, 0, 0, 16),
    ] {
        header.extend([kind, flags].iter().flat_map(|word| word.to_le_bytes()));
        header.extend(
            [0, at, at, size, size, align]
                .iter()
                .flat_map(|word: &u64| word.to_le_bytes()),
        );
    }
    image[..CODE_AT].copy_from_slice(&header);
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Output, Stdio};

    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    /// Runs the doorkeeper as a file of its own, with its standard input as the gate.
    fn run(filter: Option<(&[u8], u32)>, args: &[&str], opening: &[u8]) -> Output {
        let keeper = Doorkeeper {
            gate: 0,
            filter,
            prefix: "exec: \"x\": ",
            birth: None,
        };
        let file = crate::fd::sealed_memfd(c"test", &keeper.image().unwrap()).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut child = Command::new(&path)
            .arg0(args[0])
            .args(&args[1..])
            .env_clear()
            .env("NAME", "value")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(opening).unwrap();
        child.wait_with_output().unwrap()
    }

    #[test]
    fn the_program_gets_its_arguments_and_its_environment() {
        let output = run(
            None,
            &["/bin/sh", "name", "-c", "echo $0 $1 $NAME", "zero", "one"],
            b"s",
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), "zero one value\n");
        assert!(output.status.success() && output.stderr.is_empty());
    }

    #[test]
    fn a_gate_that_is_closed_ends_it_without_a_word() {
        let output = run(None, &["/bin/sh", "sh", "-c", "echo no"], b"");
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }

    #[test]
    fn a_program_that_cannot_start_is_reported_with_its_reason() {
        for (program, text) in [
            (
                "/no/such/program",
                "exec: \"x\": no such file or directory (ENOENT)\n",
            ),
            ("/etc/passwd", "exec: \"x\": permission denied (EACCES)\n"),
            (
                "/proc/self/cwd/x/\u{1}",
                "exec: \"x\": no such file or directory (ENOENT)\n",
            ),
            ("/etc/passwd/x", "exec: \"x\": cannot be started\n"),
        ] {
            let output = run(None, &[program, "x"], b"s");
            assert_eq!(String::from_utf8_lossy(&output.stderr), text);
            assert_eq!(output.status.code(), Some(1));
        }
    }

    #[test]
    #[allow(clippy::zombie_processes, reason = "the sibling is reaped by its id")]
    fn a_sibling_is_born_and_tells_of_itself() {
        for (program, told) in [
            ("/bin/true", None),
            (
                "/no/such",
                Some(&b"fx: no such file or directory (ENOENT)\0"[..]),
            ),
        ] {
            let (ours, theirs) = crate::fd::seqpacket_pair().unwrap();
            let keeper = Doorkeeper {
                gate: 0,
                filter: None,
                prefix: "x: ",
                birth: Some(Birth { terminal: false }),
            };
            let file = crate::fd::sealed_memfd(c"test", &keeper.image().unwrap()).unwrap();
            let mut first = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
                .arg0(program)
                .arg("x")
                .stdin(theirs)
                .spawn()
                .unwrap();
            let hear = || {
                let mut text = [0; 64];
                let count = crate::fd::read(&ours, &mut text).unwrap();
                text[..count].to_vec()
            };
            // Either may be heard first.
            let (one, other) = (hear(), hear());
            let (id, ready) = if one[0] == b'P' {
                (one, other)
            } else {
                (other, one)
            };
            assert_eq!(ready, b"k");
            let id = i32::from_le_bytes(id[1..].try_into().unwrap());
            let pidfd = crate::process::pidfd_open(nix::unistd::Pid::from_raw(id)).unwrap();
            assert!(first.wait().unwrap().success());
            assert_eq!(
                nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(id)))
                    .unwrap()
                    .as_raw(),
                id
            );
            crate::fd::write_all(&ours, b"h").unwrap();
            assert_eq!(hear(), told.unwrap_or_default());
            let code = if told.is_some() { 255 } else { 0 };
            assert_eq!(crate::process::wait(&pidfd).unwrap().code(), code);
        }
    }

    #[test]
    fn a_filter_is_in_force_when_the_program_starts() {
        // ret ALLOW
        let allow: &[u8] = &[0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];
        // Filters need no_new_privs, which a child of this test gets from nobody here; root needs none.
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: loading a filter needs root or no_new_privs");
            return;
        }
        let args = [
            "/bin/sh",
            "sh",
            "-c",
            "while read a b; do [ $a = Seccomp: ] && echo $b; done </proc/self/status; true",
        ];
        let output = run(Some((allow, 0)), &args, b"s");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n", "{output:?}");
        let output = run(Some((b"\xff\xff\xff\xff\xff\xff\xff\xff", 0)), &args, b"s");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "exec: \"x\": loading the seccomp filter: invalid argument (EINVAL)\n"
        );
    }
}
