//! Servers under test as child processes, and what the kernel accounts to them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The generator runs on the first core and servers on the second, if there are two: neither takes
/// time from the other, and every server has the same one core.
const GENERATOR_CORE: &str = "0";
const SERVER_CORE: &str = "1";

pub struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn start(program: &Path, arguments: &[&str]) -> Self {
        Self::spawn(pinned(program, arguments).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// A server that prints its address as its first line.
    pub fn start_printing(program: &Path, arguments: &[&str]) -> (Self, SocketAddr) {
        let (server, line) = Self::start_with_line(pinned(program, arguments));
        (server, line.trim().parse().expect("an address"))
    }

    /// This program with these arguments, on all cores until it moves, and the line that it prints.
    pub fn start_self(arguments: &[&str]) -> (Self, String) {
        let this = std::env::current_exe().expect("the program's own path");
        Self::start_with_line(match cores() {
            1 => plain(&this, arguments),
            cores => on_cores(&format!("0-{}", cores - 1), &this, arguments),
        })
    }

    fn start_with_line(mut command: Command) -> (Self, String) {
        let mut server = Self::spawn(command.stdout(Stdio::piped()));
        let output = server.child.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("a line");
        (server, line)
    }

    fn spawn(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    /// CPU time of all its threads so far.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanos = tasks.filter_map(|task| {
            let schedstat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            schedstat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    pub fn resident_mib(&self) -> f64 {
        resident_mib(&self.child.id().to_string())
    }
}

pub fn own_resident_mib() -> f64 {
    resident_mib("self")
}

fn resident_mib(process: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib / 1024.0
}

/// Keeps this process, the generator, on its core.
pub fn pin_generator() {
    if cores() > 1 {
        pin_self(GENERATOR_CORE);
    }
}

fn pin_self(core: &str) {
    let own = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-p", "-c", core, &own]).output();
    assert!(pinned.is_ok_and(|done| done.status.success()), "taskset (util-linux) is needed");
}

/// Of the machine, whatever this process is pinned to.
fn cores() -> usize {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

fn pinned(program: &Path, arguments: &[&str]) -> Command {
    if cores() > 1 { on_cores(SERVER_CORE, program, arguments) } else { plain(program, arguments) }
}

fn on_cores(list: &str, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", list]).arg(program).args(arguments);
    command
}

fn plain(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Waits for the file that a server writes once it is ready.
pub fn wait_for_file(path: &Path) -> String {
    for _ in 0..200 {
        if let Ok(text) = fs::read_to_string(path) {
            return text;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("{} was not written: the server does not come up", path.display());
}

/// What this program prints with these arguments on the servers' core, while the generator's core
/// spins as it does when a server is measured: two cores can share what both need.
pub fn printed_beside_a_busy_core(arguments: &[&str]) -> String {
    let this = std::env::current_exe().expect("the program's own path");
    let mut child = pinned(&this, arguments).stdout(Stdio::piped()).spawn().expect("a process");
    while child.try_wait().expect("our own child").is_none() {
        std::hint::spin_loop();
    }
    let mut printed = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut printed).expect("text");
    printed
}

/// From here on this thread, and those that it starts, run where servers do.
pub fn move_to_server_core() {
    if cores() > 1 {
        pin_self(SERVER_CORE);
    }
}
