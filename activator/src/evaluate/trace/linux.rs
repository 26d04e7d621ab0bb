//! The tracer's process.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::IoSliceMut;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use unix::errno::Errno;
use unix::libc;
use unix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use unix::sys::ptrace::{self, Options};
use unix::sys::signal::{self, Signal};
use unix::sys::uio::{RemoteIoVec, process_vm_readv};
use unix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use unix::unistd::Pid;

use super::super::costs::Cost;
use super::super::reads::{Entries, Kind, Piece, ReadSet, Reads, Seen, Stamp};
use super::super::store_tree::Root;
use super::marks::{BEGIN, DONE, SELF, WATCH};

pub(super) const SUPPORTED: bool = true;

/// Marks the process that becomes the one that is watched.
const INSIDE: &str = "--inside";

/// Ways to look at the file system, and to leave the machine.
const WATCHED: [i64; 13] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_connect,
];

/// What belongs to Nix and the system, not to the specification.
const UNCOUNTED: [&str; 5] = ["/nix/store", "/nix/var", "/proc", "/sys", "/dev"];
/// Beginnings of names under which Nix keeps what it fetched.
const FETCHED: [&[u8]; 3] = [b"fetcher-cache-", b"tarball-cache", b"gitv3"];
/// How many links in a row Linux follows.
const LINKS: usize = 40;
/// Where channels are, which are part of it after all.
const COUNTED: &str = "/nix/var/nix/profiles";

#[derive(Debug, thiserror::Error)]
enum TraceError {
    #[error("no command to watch, or a tree without its hash")]
    Usage,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("ptrace: {0}")]
    Ptrace(#[from] Errno),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::Error),
    #[error("seccomp: {0}")]
    Backend(#[from] seccompiler::BackendError),
}

pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let result = match arguments {
        [first, program, rest @ ..] if first == INSIDE => inside(program, rest),
        [report, slot, marks, root, hash, command @ ..] if !command.is_empty() => {
            let slot = slot.to_str().and_then(|text| text.parse().ok()).unwrap_or(0);
            tree(root, hash)
                .and_then(|root| watch(Path::new(report), slot, Eye::new(marks.into(), root), command))
        }
        _ => Err(TraceError::Usage),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: an evaluation cannot be watched: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The only tree that counts; without a path there is none.
fn tree(path: &OsStr, hash: &OsStr) -> Result<Option<Root>, TraceError> {
    if path.is_empty() {
        return Ok(None);
    }
    let root = Root::new(path.into(), hash.to_string_lossy().into_owned());
    root.map(Some).ok_or(TraceError::Usage)
}

pub(super) fn read_report(report: &Path) -> Option<Reads> {
    serde_json::from_slice(&std::fs::read(report).ok()?).ok()
}

/// In the new process: gets ready to be watched, stops until the tracer is ready too, then becomes the program.
/// Returns only when that fails.
fn inside(program: &OsStr, arguments: &[OsString]) -> Result<u8, TraceError> {
    ptrace::traceme()?;
    let rules = WATCHED.iter().map(|call| (*call, vec![])).collect();
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), TargetArch::x86_64)?;
    let filter: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&filter)?;
    signal::raise(Signal::SIGSTOP)?;
    Err(Command::new(program).args(arguments).exec().into())
}

fn watch(report: &Path, slot: usize, mut eye: Eye, command: &[OsString]) -> Result<u8, TraceError> {
    // An interrupt is for Nix, which ends by it; the tracer ends when Nix has ended.
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signal_hook::flag::register(signal as i32, Arc::new(AtomicBool::new(false)))?;
    }
    // Tracer and Nix take turns: to wake up somebody on another processor would take several times as long.
    let processors = Processors::choose(slot)?;
    sched_setaffinity(Pid::from_raw(0), &processors.one)?;
    let child = Command::new(std::env::current_exe()?).args([WATCH, INSIDE]).args(command).spawn()?;
    let root = Pid::from_raw(i32::try_from(child.id()).map_err(|_| Errno::ESRCH)?);
    if !matches!(waitpid(root, Some(WaitPidFlag::__WALL))?, WaitStatus::Stopped(_, Signal::SIGSTOP)) {
        // This system does not allow it, as some containers do not: then the evaluation is not watched, and not
        // remembered.
        let (program, arguments) = command.split_first().ok_or(TraceError::Usage)?;
        sched_setaffinity(Pid::from_raw(0), &processors.all)?;
        return Err(Command::new(program).args(arguments).exec().into());
    }
    ptrace::setoptions(
        root,
        Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL,
    )?;
    ptrace::cont(root, None)?;

    let mut code = 1;
    let mut started = HashSet::from([root]);
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            // Nobody is left.
            Err(Errno::ECHILD) => break,
            Err(error) => return Err(error.into()),
        };
        let go_on = match status {
            WaitStatus::Exited(pid, status) => {
                if pid == root {
                    code = u8::try_from(status).unwrap_or(1);
                }
                None
            }
            WaitStatus::Signaled(pid, signal, _) => {
                if pid == root {
                    code = u8::try_from(128 + signal as i32).unwrap_or(1);
                }
                None
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == libc::PTRACE_EVENT_SECCOMP {
                    eye.call(pid);
                } else if event == libc::PTRACE_EVENT_EXEC {
                    eye.program(pid);
                    if pid != root {
                        // What Nix starts is none of that.
                        let _ = sched_setaffinity(pid, &processors.all);
                    }
                }
                Some((pid, None))
            }
            // A new process or thread begins with a stop of its own.
            WaitStatus::Stopped(pid, Signal::SIGSTOP) if started.insert(pid) => Some((pid, None)),
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => Some((pid, None)),
            WaitStatus::Stopped(pid, signal) => Some((pid, Some(signal))),
            other => other.pid().map(|pid| (pid, None)),
        };
        if let Some((pid, signal)) = go_on {
            match ptrace::cont(pid, signal) {
                // It was killed meanwhile, and will be reported so.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    std::fs::write(report, serde_json::to_vec(&eye.close()).map_err(std::io::Error::from)?)?;
    Ok(code)
}

/// Processors of this computer that may be used.
#[derive(Clone, Copy, Debug)]
struct Processors {
    all: CpuSet,
    one: CpuSet,
}

impl Processors {
    /// Of `number` and its multiples, the one that is there.
    fn choose(number: usize) -> Result<Self, Errno> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let usable: Vec<usize> =
            (0..CpuSet::count()).filter(|processor| all.is_set(*processor) == Ok(true)).collect();
        let mut one = CpuSet::new();
        if let Some(processor) = usable.get(number % usable.len().max(1)) {
            one.set(*processor)?;
        }
        Ok(Self { all, one })
    }
}

/// What was seen so far.
#[derive(Debug)]
struct Eye {
    /// What the names of marks begin with.
    marks: PathBuf,
    /// The only tree that counts, where there is one.
    root: Option<Root>,
    /// Whether marks are seen at all.
    has_begun: bool,
    /// What was there when it was looked at.
    seen: BTreeMap<PathBuf, Look>,
    /// What was seen until a node was done, for each that is; later pieces are in `new`.
    pieces: Vec<(String, BTreeMap<PathBuf, Look>)>,
    /// What was seen since.
    new: BTreeMap<PathBuf, Look>,
    /// Whether something mattered that is not in a file.
    incomplete: bool,
    /// Where Nix keeps what it fetched.
    fetched: Option<PathBuf>,
    began: (SystemTime, Instant),
    /// What had been taken when each node was done.
    done: Vec<Cost>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    /// Only whether it is there and what it is was asked.
    Outside(Seen),
    /// A directory that was listed.
    Listed(Rc<Entries>),
    /// A file that was read. Its content is taken down at the end, if it is the same file then.
    Read(Stamp),
}

impl Eye {
    fn new(marks: PathBuf, root: Option<Root>) -> Self {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(std::env::home_dir()?.join(".cache")));
        Self {
            marks,
            root,
            has_begun: false,
            seen: BTreeMap::new(),
            pieces: vec![],
            new: BTreeMap::new(),
            incomplete: false,
            fetched: std::env::var_os("NIX_CACHE_HOME")
                .map(PathBuf::from)
                .or(cache.map(|cache| cache.join("nix"))),
            began: (SystemTime::now(), Instant::now()),
            done: vec![],
        }
    }

    /// A process is about to make one of the watched calls.
    fn call(&mut self, pid: Pid) {
        let Ok(registers) = ptrace::getregs(pid) else {
            // Gone already.
            return;
        };
        let (first, second, third) = (registers.rdi, registers.rsi, registers.rdx);
        let call = i64::try_from(registers.orig_rax).unwrap_or(-1);
        if call == libc::SYS_connect {
            let family = read_memory(pid, second, 2);
            let family = family.and_then(|bytes| Some(u16::from_le_bytes(bytes.try_into().ok()?)));
            let network = [libc::AF_INET, libc::AF_INET6];
            // What is pure fetches only what it knows the hash of.
            self.incomplete |=
                self.root.is_none() && family.is_none_or(|family| network.contains(&i32::from(family)));
            return;
        }
        let (directory, path, flags) = match call {
            libc::SYS_open => (None, first, Some(second)),
            libc::SYS_openat => (Some(first), second, Some(third)),
            libc::SYS_openat2 => {
                let flags = read_memory(pid, third, 8).and_then(|bytes| bytes.try_into().ok());
                (Some(first), second, flags.map(u64::from_le_bytes))
            }
            libc::SYS_stat | libc::SYS_lstat | libc::SYS_access | libc::SYS_readlink => (None, first, None),
            _ => (Some(first), second, None),
        };
        let Some(path) = read_path(pid, path) else {
            self.incomplete = true;
            return;
        };
        if path.as_os_str().is_empty() {
            // About a file that is open already.
            return;
        }
        match absolute(pid, directory, &path) {
            Some(path) => match path.to_str().and_then(|path| path.strip_prefix(self.marks.to_str()?)) {
                Some(BEGIN) => self.has_begun = true,
                Some(SELF) => self.incomplete = true,
                Some(mark) => self.done(mark.strip_prefix(DONE).unwrap_or(mark), pid),
                None => self.path(&path, flags, 0),
            },
            None => self.incomplete = true,
        }
    }

    /// A process has become another program.
    fn program(&mut self, pid: Pid) {
        if self.root.is_none()
            && let Ok(path) = std::fs::read_link(format!("/proc/{pid}/exe"))
        {
            self.look(&path, true, 0);
        }
    }

    /// A process has done a node, which goes by the hash of its name.
    fn done(&mut self, node: &str, pid: Pid) {
        let millis = u64::try_from(self.began.1.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.done.push(Cost { millis, mib: resident_mib(pid).unwrap_or(0) });
        // What comes after something that cannot be vouched for cannot be either.
        if !self.incomplete {
            self.pieces.push((node.to_owned(), std::mem::take(&mut self.new)));
        }
    }

    fn path(&mut self, path: &Path, flags: Option<u64>, links: usize) {
        // A slash at the end asks for what a link leads to, which is taken down with the link.
        let path = &path.components().collect::<PathBuf>();
        if let Some(root) = &self.root {
            if !path.starts_with(root.path()) {
                // Later versions of Nix (2.34) know the hash of the whole tree, and use a copy of it under another
                // name without a look at the tree. What is in any other copy was read in the tree to make it, or is
                // named by its hash.
                let inside = root.path().parent().and_then(|store| path.strip_prefix(store).ok());
                let item = inside.and_then(|path| path.components().next());
                self.incomplete |= item.is_some_and(|item| root.is_copied_to(item.as_os_str()));
                return;
            }
        } else if is_uncounted(path) {
            // A link there may lead out of it again, as home-manager's do.
            if (1..LINKS).contains(&links)
                && let (Seen::Link(target), Some(parent)) = (Seen::look(path), path.parent())
            {
                self.path(&parent.join(target), flags, links + 1);
            }
            return;
        }
        if let Some(fetched) = &self.fetched
            && path.starts_with(fetched)
        {
            // What was fetched with a hash is found by it in the store; anything else may be another thing tomorrow.
            // Narrow exception: what binary caches offer.
            let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
            self.incomplete |= flags.is_some() && !name.starts_with(b"binary-cache");
            return;
        }
        // The same, wherever else it may be.
        if path
            .components()
            .any(|part| FETCHED.iter().any(|name| part.as_os_str().as_bytes().starts_with(name)))
        {
            self.incomplete = true;
            return;
        }
        let has = |flag: i32| flags.is_some_and(|flags| flags & u64::try_from(flag).unwrap_or(0) != 0);
        if has(libc::O_WRONLY) || has(libc::O_RDWR) {
            return;
        }
        self.look(path, flags.is_some() && !has(libc::O_PATH), links);
    }

    /// `links` have led here.
    fn look(&mut self, path: &Path, inside: bool, links: usize) {
        let known = self.seen.get(path);
        let closer = |known: &Look| inside && matches!(known, Look::Outside(Seen::Kind(_) | Seen::Link(_)));
        if known.is_some_and(|known| !closer(known)) {
            return;
        }
        let seen = Seen::look(path);
        if !inside && self.is_listed(path, &seen) {
            return;
        }
        let look = match &seen {
            Seen::Link(target) => {
                let target = path.parent().map(|parent| parent.join(target));
                self.takes_down(path, Look::Outside(seen));
                if let Some(target) = target.filter(|_| links < LINKS) {
                    self.path(&target, inside.then_some(0), links + 1);
                }
                return;
            }
            Seen::Kind(Kind::Directory) if inside => match Entries::of(path) {
                Some(entries) => Look::Listed(Rc::new(entries)),
                None => Look::Outside(Seen::Absent),
            },
            Seen::Kind(Kind::File) if inside => match std::fs::symlink_metadata(path) {
                Ok(metadata) => Look::Read(Stamp::of(&metadata)),
                Err(_) => Look::Outside(Seen::Absent),
            },
            _ => Look::Outside(seen),
        };
        self.takes_down(path, look);
    }

    /// Whether a directory that was listed says the same.
    fn is_listed(&self, path: &Path, seen: &Seen) -> bool {
        let listed = path.parent().and_then(|parent| self.seen.get(parent));
        match (listed, path.file_name()) {
            (Some(Look::Listed(entries)), Some(name)) => entries.say(name, seen),
            _ => false,
        }
    }

    fn takes_down(&mut self, path: &Path, look: Look) {
        self.seen.insert(path.to_owned(), look.clone());
        self.new.insert(path.to_owned(), look);
    }

    /// Everything up to the first thing that cannot be vouched for.
    fn close(mut self) -> Reads {
        // Everybody who evaluates a flake reads this one. Who does not see it sees nothing.
        let is_flake =
            |(path, look): (&PathBuf, &Look)| path.ends_with("flake.nix") && matches!(look, Look::Read(_));
        if self.root.is_some() && !(self.has_begun && self.seen.iter().any(is_flake)) {
            self.pieces.clear();
            self.incomplete = true;
        }
        let (began, _) = self.began;
        let full = |(path, look): (PathBuf, Look)| {
            let seen = match look {
                Look::Outside(seen) => seen,
                Look::Listed(entries) => entries.seen(),
                // Another tree has other files at other times.
                Look::Read(stamp) => Seen::content(&path, stamp, self.root.is_none().then_some(began))?,
            };
            let path = match &self.root {
                Some(root) => path.strip_prefix(root.path()).ok()?.to_owned(),
                None => path,
            };
            // Other names cannot be written down.
            let is_text = match &seen {
                Seen::Link(target) => target.to_str().is_some(),
                _ => true,
            };
            (is_text && path.to_str().is_some()).then_some((path, seen))
        };
        let all = self.pieces.into_iter().map(|(node, seen)| (Some(node), seen));
        let last = (!self.incomplete).then_some((None, self.new));
        let mut pieces = vec![];
        let mut complete = !self.incomplete;
        for (done, seen) in all.chain(last) {
            let Some(seen) = seen.into_iter().map(full).collect() else {
                complete = false;
                break;
            };
            pieces.push(Piece { done, reads: ReadSet::new(seen) });
        }
        Reads { pieces, complete, done: self.done }
    }
}

fn is_uncounted(path: &Path) -> bool {
    // Only where no `..` is in it do the first parts of a path say where it is.
    let real = if path.components().any(|part| part == Component::ParentDir) {
        let parent = path.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
        parent.and_then(|parent| Some(parent.join(path.file_name()?)))
    } else {
        None
    };
    let path = real.as_deref().unwrap_or(path);
    UNCOUNTED.iter().any(|prefix| path.starts_with(prefix)) && !path.starts_with(COUNTED)
}

/// A path as the process means it.
fn absolute(pid: Pid, directory: Option<u64>, path: &Path) -> Option<PathBuf> {
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    // The descriptor is an `int` in the lower half of its register.
    let directory = directory.map(|register| register & 0xffff_ffff);
    let here = u64::from(libc::AT_FDCWD.cast_unsigned());
    let base = match directory {
        Some(descriptor) if descriptor != here => format!("/proc/{pid}/fd/{descriptor}"),
        _ => format!("/proc/{pid}/cwd"),
    };
    Some(std::fs::read_link(base).ok()?.join(path))
}

/// How much memory a process has, in MiB.
fn resident_mib(pid: Pid) -> Option<u64> {
    crate::meminfo::mib(&format!("/proc/{pid}/status"), "VmRSS")
}

fn read_path(pid: Pid, address: u64) -> Option<PathBuf> {
    // A read stops at the end of what is mapped, which may be right behind the path.
    let bytes = read_memory(pid, address, usize::try_from(libc::PATH_MAX).ok()?)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(PathBuf::from(OsStr::from_bytes(bytes.get(..end)?)))
}

fn read_memory(pid: Pid, address: u64, length: usize) -> Option<Vec<u8>> {
    const PAGE: usize = 4096;
    let base = usize::try_from(address).ok()?;
    let mut bytes = vec![0; length];
    // The kernel copies what it can, but only whole pieces of the list it is given: one piece a page.
    let mut pieces = vec![];
    let mut at = base;
    while at < base + length {
        let end = ((at / PAGE + 1) * PAGE).min(base + length);
        pieces.push(RemoteIoVec { base: at, len: end - at });
        at = end;
    }
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &pieces).ok()?;
    bytes.truncate(read);
    Some(bytes)
}
