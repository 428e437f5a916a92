//! Job objects: a program and everything that it starts, counted, limited and ended together.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::windows::io::{AsRawHandle, BorrowedHandle, OwnedHandle};
use std::ptr::{from_mut, from_ref, null, null_mut};

use windows_sys::Win32::Foundation::ERROR_MORE_DATA;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
    JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOB_OBJECT_LIMIT_PRIORITY_CLASS, JOB_OBJECT_LIMIT_PROCESS_MEMORY, JOB_OBJECT_LIMIT_PROCESS_TIME,
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECT_BASIC_PROCESS_ID_LIST,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectBasicAccountingInformation, JobObjectBasicProcessIdList,
    JobObjectExtendedLimitInformation, QueryInformationJobObject, SetInformationJobObject,
    TerminateJobObject,
};
use windows_sys::Win32::System::Threading::{
    ABOVE_NORMAL_PRIORITY_CLASS, BELOW_NORMAL_PRIORITY_CLASS, HIGH_PRIORITY_CLASS, IDLE_PRIORITY_CLASS,
    NORMAL_PRIORITY_CLASS, OpenThread, ResumeThread, THREAD_SUSPEND_RESUME,
};

use super::{done, owned};

/// A job object of ours without a name. Its processes end when it is dropped, also by the end of this process.
#[derive(Debug)]
pub struct Job(OwnedHandle);

/// What the processes of a job may use; absent = no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Committed memory of each process, in bytes.
    pub memory_bytes: Option<u64>,
    /// User time of each process, in seconds.
    pub cpu_seconds: Option<u64>,
    /// Processes at the same time.
    pub processes: Option<u32>,
    /// Niceness in the sense of Unix, -20 to 19; becomes one of five classes.
    pub nice: Option<i32>,
}

impl Job {
    /// An empty one with these limits.
    pub fn new(limits: &Limits) -> io::Result<Self> {
        // SAFETY: both pointers may be null: default security, no name.
        let job = Self(owned(unsafe { CreateJobObjectW(null(), null()) })?);
        let mut info = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        let basic = &mut info.BasicLimitInformation;
        // A crash must end the process, not wait for somebody to click a box away.
        basic.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION;
        if let Some(seconds) = limits.cpu_seconds {
            basic.LimitFlags |= JOB_OBJECT_LIMIT_PROCESS_TIME;
            // In units of 100 ns.
            basic.PerProcessUserTimeLimit =
                i64::try_from(seconds.saturating_mul(10_000_000)).unwrap_or(i64::MAX);
        }
        if let Some(most) = limits.processes {
            basic.LimitFlags |= JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
            basic.ActiveProcessLimit = most;
        }
        if let Some(nice) = limits.nice {
            basic.LimitFlags |= JOB_OBJECT_LIMIT_PRIORITY_CLASS;
            basic.PriorityClass = priority_class(nice);
        }
        if let Some(bytes) = limits.memory_bytes {
            basic.LimitFlags |= JOB_OBJECT_LIMIT_PROCESS_MEMORY;
            info.ProcessMemoryLimit = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        let length = size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32;
        // SAFETY: the handle is open, the class and the structure belong together, the length is that of the structure.
        done(unsafe {
            SetInformationJobObject(
                job.0.as_raw_handle(),
                JobObjectExtendedLimitInformation,
                from_ref(&info).cast(),
                length,
            )
        })?;
        Ok(job)
    }

    /// Puts a process into it, with all that it will start.
    pub fn assign(&self, process: BorrowedHandle<'_>) -> io::Result<()> {
        // SAFETY: both handles are open for the time of the call.
        done(unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), process.as_raw_handle()) })
    }

    /// Ends all its processes at one instant: none can slip away by starting another.
    pub fn terminate(&self) -> io::Result<()> {
        // SAFETY: the handle is open.
        done(unsafe { TerminateJobObject(self.0.as_raw_handle(), 1) })
    }

    /// How many of its processes live.
    pub fn active(&self) -> io::Result<u32> {
        Ok(self.account()?.ActiveProcesses)
    }

    /// User time that all its processes have used, those that have ended included, in milliseconds.
    pub fn user_ms(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.account()?.TotalUserTime).unwrap_or(0) / 10_000)
    }

    fn account(&self) -> io::Result<JOBOBJECT_BASIC_ACCOUNTING_INFORMATION> {
        let mut info = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
        let length = size_of::<JOBOBJECT_BASIC_ACCOUNTING_INFORMATION>() as u32;
        // SAFETY: the class and the structure belong together, the length is that of the structure; a null pointer says
        // that the returned length is not wanted.
        done(unsafe {
            QueryInformationJobObject(
                self.0.as_raw_handle(),
                JobObjectBasicAccountingInformation,
                from_mut(&mut info).cast(),
                length,
                null_mut(),
            )
        })?;
        Ok(info)
    }

    /// The ids of its processes, at most `most` of them.
    pub fn processes(&self, most: usize) -> io::Result<Vec<u32>> {
        let head = offset_of!(JOBOBJECT_BASIC_PROCESS_ID_LIST, ProcessIdList);
        let head_words = head.div_ceil(size_of::<usize>());
        // Words, so that it is aligned for the structure.
        let mut buffer = vec![0_usize; head_words + most.max(1)];
        let length = u32::try_from(buffer.len() * size_of::<usize>()).unwrap_or(u32::MAX);
        // SAFETY: the buffer is aligned for the structure, at least as long as it, and `length` bytes long.
        let answer = done(unsafe {
            QueryInformationJobObject(
                self.0.as_raw_handle(),
                JobObjectBasicProcessIdList,
                buffer.as_mut_ptr().cast(),
                length,
                null_mut(),
            )
        });
        match answer {
            // As many as there was room for are in the buffer.
            Err(error) if error.raw_os_error() != Some(ERROR_MORE_DATA as i32) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // SAFETY: the buffer holds the head of the structure, which is plain numbers.
        let listed =
            unsafe { (*buffer.as_ptr().cast::<JOBOBJECT_BASIC_PROCESS_ID_LIST>()).NumberOfProcessIdsInList };
        let ids = buffer.iter().skip(head_words).take(listed as usize);
        Ok(ids.filter_map(|id| u32::try_from(*id).ok()).collect())
    }
}

/// Lets a process go on that was started suspended.
pub fn resume(process: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    let snapshot = owned(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) })?;
    let mut entry = THREADENTRY32 { dwSize: size_of::<THREADENTRY32>() as u32, ..THREADENTRY32::default() };
    let mut resumed = false;
    // SAFETY: the snapshot is open, the entry says its own size.
    let mut more = unsafe { Thread32First(snapshot.as_raw_handle(), &mut entry) };
    while more != 0 {
        if entry.th32OwnerProcessID == process {
            // SAFETY: takes numbers only; the process is suspended, so that its threads and their ids stay.
            let thread = owned(unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, entry.th32ThreadID) })?;
            // SAFETY: the handle is open and has the right to resume.
            if unsafe { ResumeThread(thread.as_raw_handle()) } == u32::MAX {
                return Err(io::Error::last_os_error());
            }
            resumed = true;
        }
        // SAFETY: as above.
        more = unsafe { Thread32Next(snapshot.as_raw_handle(), &mut entry) };
    }
    if resumed { Ok(()) } else { Err(io::Error::other("the new process has no thread")) }
}

fn priority_class(nice: i32) -> u32 {
    match nice {
        ..=-10 => HIGH_PRIORITY_CLASS,
        -9..=-1 => ABOVE_NORMAL_PRIORITY_CLASS,
        0 => NORMAL_PRIORITY_CLASS,
        1..=14 => BELOW_NORMAL_PRIORITY_CLASS,
        15.. => IDLE_PRIORITY_CLASS,
    }
}
