//! What the kernel takes for moving bytes the way that mailtrail moves them, without doing anything with them: from a
//! socket into a spool, which is made durable, back from the spool, and into a file.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::Duration,
};

use nix::sys::resource::{UsageWho, getrusage};

use crate::support::{Outcome, cpu};

/// One flush for so many bodies, as mailtrail comes to while a backlog arrives.
const BODIES_A_FLUSH: u64 = 4;

/// As long as a request for a blob.
const REQUEST: usize = 400;

/// CPU time for so many bodies of this length, when `bytes_out` are written for each of them.
pub(crate) fn moving(bodies: u64, length: usize, bytes_out: usize, directory: &Path) -> Outcome<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let serving = thread::spawn(move || serve(&listener, length));
    let spool = OpenOptions::new().read(true).write(true).create_new(true).open(directory.join("spool"))?;
    let mut file = File::create_new(directory.join("file"))?;
    let mut body = vec![0; length];
    let line = vec![b'x'; bytes_out];

    let before = cpu_of_thread()?;
    for place in 0..bodies {
        stream.write_all(&[b'g'; REQUEST])?;
        stream.read_exact(&mut body)?;
        spool.write_all_at(&body, place * length as u64)?;
        let flush = place % BODIES_A_FLUSH == 0;
        if flush {
            spool.sync_data()?;
        }
        spool.read_exact_at(&mut body, place * length as u64)?;
        file.write_all(&line)?;
        if flush {
            file.sync_data()?;
        }
    }
    let taken = cpu_of_thread()?.saturating_sub(before);

    drop(stream);
    serving.join().map_err(|_| "who serves the bytes panicked")??;
    Ok(taken)
}

/// What this thread has taken so far: unlike a clock it does not run on while others have the processor.
pub(crate) fn cpu_of_thread() -> Outcome<Duration> {
    Ok(cpu(&getrusage(UsageWho::RUSAGE_THREAD)?))
}

/// Answers each request of the only client with a body, until the client goes.
fn serve(listener: &TcpListener, length: usize) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let (mut request, body) = ([0; REQUEST], vec![b'x'; length]);
    while stream.read_exact(&mut request).is_ok() {
        stream.write_all(&body)?;
    }
    Ok(())
}
