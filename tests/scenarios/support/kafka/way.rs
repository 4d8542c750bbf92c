//! The way to a broker, on which answers can get lost.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::Broker;

/// How often the end is looked for while nobody comes.
const LOOK: Duration = Duration::from_millis(20);
/// The number of the request to write, in the protocol's list.
const PRODUCE: [u8; 2] = [0, 0];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Everything,
    /// Everything but the answers on a connection on which somebody writes.
    NoAnswersToWrites,
    Nothing,
    /// Nothing ever again.
    Gone,
}

/// A port that leads to a broker which tells everybody to use this port. Dropping it cuts every connection.
pub(crate) struct Way {
    port: u16,
    traffic: Arc<Mutex<Traffic>>,
}

struct Traffic {
    passing: Passing,
    /// The broker's own port, once it is known.
    broker: u16,
    /// Both ends of each.
    connections: Vec<[TcpStream; 2]>,
}

impl Way {
    /// One to a broker that starts now.
    pub(crate) fn to_a_broker() -> (Self, Broker) {
        let way = Self::new();
        let broker = Broker::start_behind(way.port);
        lock(&way.traffic).broker = broker.port();
        (way, broker)
    }

    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        listener.set_nonblocking(true).expect("it need not wait");
        let traffic = Traffic { passing: Passing::Everything, broker: 0, connections: Vec::new() };
        let traffic = Arc::new(Mutex::new(traffic));
        let of_all = Arc::clone(&traffic);
        thread::spawn(move || {
            while lock(&of_all).passing != Passing::Gone {
                match listener.accept() {
                    // Without a broker, too, whoever came is turned away.
                    Ok((client, _)) => drop(lead(client, &of_all)),
                    Err(_) => thread::sleep(LOOK),
                }
            }
        });
        Self { port, traffic }
    }

    /// Lets requests to write through, but no answers on their connections any more.
    pub(crate) fn loses_the_answers_to_writes(&self) {
        self.lets_pass(Passing::NoAnswersToWrites);
    }

    /// Cuts every connection, and lets nobody through.
    pub(crate) fn shuts(&self) {
        self.lets_pass(Passing::Nothing);
    }

    /// Lets everything pass.
    pub(crate) fn opens(&self) {
        self.lets_pass(Passing::Everything);
    }

    fn lets_pass(&self, passing: Passing) {
        let mut traffic = lock(&self.traffic);
        traffic.passing = passing;
        if matches!(passing, Passing::Nothing | Passing::Gone) {
            traffic.connections.drain(..).for_each(|ends| cut(&ends));
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.lets_pass(Passing::Gone);
    }
}

fn lock(traffic: &Mutex<Traffic>) -> MutexGuard<'_, Traffic> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut(ends: &[TcpStream]) {
    for end in ends {
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn lead(client: TcpStream, traffic: &Arc<Mutex<Traffic>>) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let mut held = lock(traffic);
    if matches!(held.passing, Passing::Nothing | Passing::Gone) {
        return Ok(());
    }
    let broker = TcpStream::connect(("127.0.0.1", held.broker))?;
    held.connections.push([client.try_clone()?, broker.try_clone()?]);
    let (deaf, hearing) = (Arc::new(AtomicBool::new(false)), Arc::clone(traffic));
    let (ends, is_deaf) = ([client.try_clone()?, broker.try_clone()?], Arc::clone(&deaf));
    thread::spawn(move || {
        let _ = requests(&ends, &hearing, &is_deaf);
        cut(&ends);
    });
    thread::spawn(move || {
        let ends = [client, broker];
        let _ = answers(&ends, &deaf);
        cut(&ends);
    });
    Ok(())
}

/// Each is its length in four bytes and then that much, of which the first two say what it is.
fn requests(
    [client, broker]: &[TcpStream; 2],
    traffic: &Mutex<Traffic>,
    deaf: &AtomicBool,
) -> io::Result<()> {
    let (mut client, mut broker) = (client, broker);
    loop {
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        client.read_exact(&mut request)?;
        if request.starts_with(&PRODUCE) && lock(traffic).passing == Passing::NoAnswersToWrites {
            // Before it is passed on, so that its answer cannot be earlier.
            deaf.store(true, Ordering::SeqCst);
        }
        broker.write_all(&length)?;
        broker.write_all(&request)?;
    }
}

fn answers([client, broker]: &[TcpStream; 2], deaf: &AtomicBool) -> io::Result<()> {
    let (mut client, mut broker) = (client, broker);
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = broker.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        if !deaf.load(Ordering::SeqCst) {
            client.write_all(&piece[..length])?;
        }
    }
}
