//! Figures of the host: CPU times and memory, and which processes run.

use std::io;
use std::mem::size_of;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::ptr::null_mut;

use windows_sys::Wdk::System::Threading::{NtQueryInformationProcess, ProcessCommandLineInformation};
use windows_sys::Win32::Foundation::{FILETIME, UNICODE_STRING};
use windows_sys::Win32::Storage::FileSystem::GetDiskFreeSpaceExW;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, GetSystemTimes, OpenProcess, PROCESS_NAME_WIN32, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_TERMINATE, QueryFullProcessImageNameW, TerminateProcess,
};

use super::{done, narrow, owned};

/// CPU time since the start of the host, over all cores, in units of 100 ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    /// Not idle.
    pub busy: u64,
    /// Passed.
    pub all: u64,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Name of its program file, `qgis.exe`.
    pub name: String,
}

/// The CPU times of the host.
pub fn cpu_times() -> io::Result<CpuTimes> {
    let (mut idle, mut kernel, mut user) = (FILETIME::default(), FILETIME::default(), FILETIME::default());
    // SAFETY: three places for three results.
    done(unsafe { GetSystemTimes(&mut idle, &mut kernel, &mut user) })?;
    // The kernel's time includes the idle one.
    let all = number(kernel) + number(user);
    Ok(CpuTimes { busy: all.saturating_sub(number(idle)), all })
}

/// Physical memory in use and in all, in bytes.
pub fn memory() -> io::Result<(u64, u64)> {
    let mut status =
        MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..MEMORYSTATUSEX::default() };
    // SAFETY: the structure says its own size.
    done(unsafe { GlobalMemoryStatusEx(&mut status) })?;
    Ok((status.ullTotalPhys.saturating_sub(status.ullAvailPhys), status.ullTotalPhys))
}

/// Bytes that this account can still write to the disk of a folder.
pub fn free_space(folder: &Path) -> io::Result<u64> {
    let name: Vec<u16> = folder.as_os_str().encode_wide().take_while(|unit| *unit != 0).chain([0]).collect();
    let mut free = 0;
    // SAFETY: the name is zero-terminated and lives through the call; the results that are not wanted may be null.
    done(unsafe { GetDiskFreeSpaceExW(name.as_ptr(), &mut free, null_mut(), null_mut()) })?;
    Ok(free)
}

/// All processes.
pub fn processes() -> io::Result<Vec<Process>> {
    // SAFETY: takes numbers only.
    let snapshot = owned(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) })?;
    let mut entry =
        PROCESSENTRY32W { dwSize: size_of::<PROCESSENTRY32W>() as u32, ..PROCESSENTRY32W::default() };
    let mut found = Vec::new();
    // SAFETY: the snapshot is open, the entry says its own size.
    let mut more = unsafe { Process32FirstW(snapshot.as_raw_handle(), &mut entry) };
    while more != 0 {
        found.push(Process { pid: entry.th32ProcessID, name: narrow(&entry.szExeFile) });
        // SAFETY: as above.
        more = unsafe { Process32NextW(snapshot.as_raw_handle(), &mut entry) };
    }
    Ok(found)
}

/// CPU time that a process has used, in units of 100 ns.
pub fn used_time(pid: u32) -> io::Result<u64> {
    // SAFETY: takes numbers only.
    let process = owned(unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) })?;
    let mut times = [FILETIME::default(); 4];
    let [created, exited, kernel, user] = &mut times;
    // SAFETY: the handle is open and has the right to ask; four places for four results.
    done(unsafe { GetProcessTimes(process.as_raw_handle(), created, exited, kernel, user) })?;
    Ok(number(times[2]) + number(times[3]))
}

/// Path of the program that a process runs.
pub fn program_of(pid: u32) -> io::Result<String> {
    // SAFETY: takes numbers only.
    let process = owned(unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) })?;
    let mut buffer = vec![0_u16; 32 * 1024];
    let mut length = buffer.len() as u32;
    // SAFETY: the handle is open and has the right to ask; `length` is that of the buffer, and is set to what was written.
    done(unsafe {
        QueryFullProcessImageNameW(
            process.as_raw_handle(),
            PROCESS_NAME_WIN32,
            buffer.as_mut_ptr(),
            &mut length,
        )
    })?;
    Ok(narrow(buffer.get(..length as usize).unwrap_or(&buffer)))
}

/// Command line of a process, as it was given.
pub fn command_line(pid: u32) -> io::Result<String> {
    // SAFETY: takes numbers only.
    let process = owned(unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) })?;
    // The longest command line, and room for the structure that stands before it. Words, so that it is aligned for that.
    let mut buffer = vec![0_usize; (64 * 1024 + 64) / size_of::<usize>()];
    let bytes = buffer.len() * size_of::<usize>();
    let mut written = 0_u32;
    // SAFETY: the handle is open and has the right to ask; the buffer is `bytes` long.
    let status = unsafe {
        NtQueryInformationProcess(
            process.as_raw_handle(),
            ProcessCommandLineInformation,
            buffer.as_mut_ptr().cast(),
            bytes as u32,
            &mut written,
        )
    };
    if status < 0 {
        return Err(io::Error::other(format!("NtQueryInformationProcess: {status:#010x}")));
    }
    let start = buffer.as_ptr().addr();
    // SAFETY: the call has written this structure at the beginning of the buffer, which is aligned and long enough for it.
    let text = unsafe { buffer.as_ptr().cast::<UNICODE_STRING>().read() };
    // The text stands in the same buffer; that is looked at and not believed.
    let from = text.Buffer.addr().wrapping_sub(start);
    let length = usize::from(text.Length);
    let inside = from.checked_add(length).is_some_and(|end| end <= bytes) && from.is_multiple_of(2);
    if !inside {
        return Err(io::Error::other("the system gave an impossible command line"));
    }
    let units: Vec<u16> = buffer
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .skip(from)
        .take(length)
        .collect::<Vec<u8>>()
        .chunks_exact(2)
        .map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))
        .collect();
    Ok(String::from_utf16_lossy(&units))
}

/// Ends one process at once.
pub fn terminate(pid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    let process = owned(unsafe { OpenProcess(PROCESS_TERMINATE, 0, pid) })?;
    // SAFETY: the handle is open and has the right to end the process.
    done(unsafe { TerminateProcess(process.as_raw_handle(), 1) })
}

fn number(time: FILETIME) -> u64 {
    u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)
}
