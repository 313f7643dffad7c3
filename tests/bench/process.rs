//! A process being measured: started on its own core, read through `/proc`, ended with its guard.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;

/// Which core does what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// The proxy being measured, alone.
    proxy: usize,
    /// Load generator and backend.
    load: usize,
}

impl Cores {
    /// Takes the first two cores this process may use and moves this thread to the second.
    /// Call it before any other thread starts: threads inherit their maker's core.
    pub(crate) fn claim() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (Some(proxy), Some(load)) = (cores.next(), cores.next()) else {
            return Err("two cores are needed: one for the proxy, one for load and backend".into());
        };
        pin(load)?;
        Ok(Self { proxy, load })
    }

    /// Lets this thread, and what it starts from now on, use both.
    pub(crate) fn release(self) -> Result<()> {
        let mut cores = CpuSet::new();
        cores.set(self.proxy);
        cores.set(self.load);
        Ok(sched_setaffinity(None, &cores)?)
    }
}

/// A child process; killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    errors: PathBuf,
}

impl Process {
    /// Starts `command` on the proxy's core, its output going to `output` and its errors to
    /// `errors`.
    pub(crate) fn start(
        command: Command,
        cores: Cores,
        output: &Path,
        errors: &Path,
    ) -> Result<Self> {
        // A child inherits the core of the thread that starts it, and hands it to its own threads.
        pin(cores.proxy)?;
        let started = Self::start_anywhere(command, output, errors);
        pin(cores.load)?;
        started
    }

    /// As [`Self::start`], on the cores of this thread.
    pub(crate) fn start_anywhere(
        mut command: Command,
        output: &Path,
        errors: &Path,
    ) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(File::create(output)?)
            .stderr(File::create(errors)?);
        let started = command.spawn();
        let child = started
            .map_err(|e| format!("could not start {}: {e}", command.get_program().display()))?;
        Ok(Self {
            child,
            errors: errors.to_owned(),
        })
    }

    /// Whether it still runs; otherwise an error with the end of what it said.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("it ended ({status}): {}", self.last_words()).into()),
        }
    }

    /// The end of what it wrote to its standard error.
    pub(crate) fn last_words(&self) -> String {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<&str> = errors.lines().collect();
        let skipped = lines.len().saturating_sub(12);
        lines
            .into_iter()
            .skip(skipped)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// CPU time of all its threads so far, user and kernel.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = self.read("stat")?;
        let ticks = parse_cpu_ticks(&stat).ok_or("/proc/PID/stat is not in its documented form")?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_nanos(ticks * 1_000_000_000 / per_second))
    }

    /// Resident memory now, KiB.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let status = self.read("status")?;
        parse_resident_kib(&status).ok_or_else(|| "/proc/PID/status has no VmRSS".into())
    }

    fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; nothing here could do more about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets this process, and those it starts, open as many files as the system allows: a thousand
/// connections need two thousand here.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Refused only where the limit is already as high as it gets.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// `utime` + `stime` of `/proc/PID/stat` (proc(5)): fields 14 and 15. The second field, the
/// command's name, may hold spaces and parentheses, so counting starts after its last `)`.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// `VmRSS` of `/proc/PID/status` (proc(5)), which is in kB of 1,024 bytes.
fn parse_resident_kib(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (wrk:worker_0) S 1 4242 4242 0 -1 4194560 9 0 0 0 137 42 0 0 20 0 3 0";

    #[test]
    fn cpu_is_user_plus_system_ticks() {
        assert_eq!(parse_cpu_ticks(STAT), Some(179));
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_no_field() {
        let stat = STAT.replace("wrk:worker_0", "a ) 1 2 (b) c");
        assert_eq!(parse_cpu_ticks(&stat), Some(179));
    }

    #[test]
    fn a_cut_off_stat_is_not_zero() {
        assert_eq!(parse_cpu_ticks("4242 (wrk) S 1 4242"), None);
        assert_eq!(parse_cpu_ticks(""), None);
    }

    #[test]
    fn resident_memory_is_read_from_its_own_line() {
        let status = "Name:\tx\nVmHWM:\t   99999 kB\nVmRSS:\t   10240 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(parse_resident_kib(status), Some(10_240));
        assert_eq!(parse_resident_kib("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn this_process_has_used_some_memory_and_can_be_read() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(parse_cpu_ticks(&stat).is_some());
        assert!(parse_resident_kib(&status).unwrap() > 100);
    }
}
