//! Going through the records of a file as it is stored: decompressed and cut into lines while it is hashed, in bounded memory
//! whatever the length of a line.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::{
    entry::SealedFile,
    hash::{Hash, Hasher},
    merkle::{LeafHasher, Merkle},
    names::FileFormat,
    parquet::rows::{DIRECTORY_BYTES, NoDirectory, directory},
    records::NotRecords,
};

/// The longest line that is taken into memory. Records have some KiB; whoever archives one has it in memory as a whole, several times.
const LINE_BYTES: u64 = 256 << 20;
/// How much is decompressed at a time.
const CHUNK: usize = 128 * 1024;
/// The end of a Parquet file that is kept, for its directory.
const END_BYTES: usize = DIRECTORY_BYTES + 8;

/// What was found in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Its size as it is stored.
    pub(crate) bytes: u64,
    /// The hash of what is stored.
    pub(crate) sha256: Hash,
    /// Its records, or why they cannot be read. None when it was not looked into.
    pub(crate) content: Option<Result<Content, String>>,
}

/// The records of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// How many.
    pub(crate) records: u64,
    /// How many bytes they have without compression.
    pub(crate) raw_bytes: u64,
    /// The root over them, when they are there as they came.
    pub(crate) root: Option<Hash>,
}

/// Hashes what is read through it, and keeps the end of it.
struct Watched<R> {
    inner: R,
    hasher: Hasher,
    end: Option<Vec<u8>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if let Some(end) = &mut self.end {
            end.extend_from_slice(&buffer[..count]);
            if end.len() > 2 * END_BYTES {
                end.drain(..end.len() - END_BYTES);
            }
        }
        Ok(count)
    }
}

/// Reads a file of this size to its end. What has not the size that its entry names is only hashed; and what has not the hash, or
/// of which no `signed` entry speaks, is not looked into when it has columns.
///
/// # Errors
///
/// When `file` fails. That its content is damaged is a part of the answer.
pub(crate) fn measure(file: impl Read, size: u64, named: &SealedFile, signed: bool) -> io::Result<Measured> {
    let format = named.format;
    let end = (format == FileFormat::Parquet && signed).then(Vec::new);
    let mut file = BufReader::with_capacity(CHUNK, Watched { inner: file, hasher: Hasher::default(), end });
    let content = match format {
        _ if size != named.bytes => None,
        FileFormat::Parquet => None,
        FileFormat::NdjsonZstd | FileFormat::NdjsonGzip => {
            let mut counter = Counter::default();
            let read =
                each_chunk(&mut file, format, |chunk| counter.take(chunk)).and_then(|()| counter.finish());
            Some(read.map_err(|why| why.to_string()))
        }
    };
    // Whatever stopped the decoder, the hash is that of the whole file; when the file itself fails, it fails again here.
    io::copy(&mut file, &mut io::sink())?;
    let Watched { hasher, end, .. } = file.into_inner();
    let (bytes, sha256) = (hasher.bytes(), hasher.finish());
    let end = end.filter(|_| (bytes, sha256) == (named.bytes, named.sha256));
    let content = content.or_else(|| {
        let rows = stated_rows(&end?);
        Some(rows.map(|records| Content { records, raw_bytes: 0, root: None }))
    });
    Ok(Measured { bytes, sha256, content })
}

/// Calls `take` with each piece of the decompressed content.
fn each_chunk(file: impl BufRead, format: FileFormat, mut take: impl FnMut(&[u8])) -> Result<(), NotRecords> {
    let mut content = decoder(file, format)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match content.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(NotRecords::Compression { source }),
        }
    }
}

fn decoder<'a>(file: impl BufRead + 'a, format: FileFormat) -> Result<Box<dyn Read + 'a>, NotRecords> {
    match format {
        FileFormat::NdjsonZstd => match zstd::Decoder::with_buffer(file) {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(source) => Err(NotRecords::Compression { source }),
        },
        FileFormat::NdjsonGzip => Ok(Box::new(MultiGzDecoder::new(file))),
        FileFormat::Parquet => {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it holds columns");
            Err(NotRecords::Compression { source })
        }
    }
}

/// The lines of a file, one at a time.
pub(crate) struct Lines<'a> {
    content: BufReader<Box<dyn Read + 'a>>,
    line: Vec<u8>,
    longest: u64,
}

impl<'a> Lines<'a> {
    /// The lines of a file as it is stored.
    pub(crate) fn new(file: impl Read + 'a, format: FileFormat) -> Result<Self, NotRecords> {
        let content = decoder(BufReader::with_capacity(CHUNK, file), format)?;
        Ok(Self { content: BufReader::with_capacity(CHUNK, content), line: Vec::new(), longest: LINE_BYTES })
    }

    /// The next line, without its line break.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, NotRecords> {
        self.line.clear();
        let read = (&mut self.content).take(self.longest + 1).read_until(b'\n', &mut self.line);
        if read.map_err(|source| NotRecords::Compression { source })? == 0 {
            return Ok(None);
        }
        match self.line.strip_suffix(b"\n") {
            Some(line) => Ok(Some(line)),
            None if self.line.len() as u64 > self.longest => Err(NotRecords::TooLong { bytes: self.longest }),
            None => Err(NotRecords::Unfinished),
        }
    }
}

/// Counts lines and builds the tree over them.
#[derive(Default)]
struct Counter {
    tree: Merkle,
    raw_bytes: u64,
    /// The line that has begun.
    line: Option<LeafHasher>,
}

impl Counter {
    fn take(&mut self, mut chunk: &[u8]) {
        self.raw_bytes += chunk.len() as u64;
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            let mut line = self.line.take().unwrap_or_default();
            line.update(&chunk[..end]);
            self.tree.push_hash(line.finish());
            chunk = &chunk[end + 1..];
        }
        if !chunk.is_empty() {
            self.line.get_or_insert_default().update(chunk);
        }
    }

    fn finish(self) -> Result<Content, NotRecords> {
        if self.line.is_some() {
            return Err(NotRecords::Unfinished);
        }
        Ok(Content { records: self.tree.leaves(), raw_bytes: self.raw_bytes, root: Some(self.tree.root()) })
    }
}

/// The number of rows that a Parquet file's directory states, from the end of the file.
fn stated_rows(end: &[u8]) -> Result<u64, String> {
    let directory = directory(end).map_err(|why| match why {
        NoDirectory::Damaged(error) => error.to_string(),
        NoDirectory::Longer { .. } => "its Parquet footer is cut off".to_owned(),
    })?;
    let rows = directory.file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| format!("its Parquet footer says that it has {rows} rows"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn zstd(content: &[u8]) -> Vec<u8> {
        zstd::encode_all(content, 3).unwrap()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn named(file: &[u8], format: FileFormat) -> SealedFile {
        let (sha256, bytes) = (Hash::of(file), file.len() as u64);
        SealedFile { path: "x".parse().unwrap(), format, sha256, bytes, records: 0 }
    }

    fn measured(file: &[u8], format: FileFormat) -> Measured {
        measure(file, file.len() as u64, &named(file, format), true).unwrap()
    }

    fn why(file: &[u8], format: FileFormat) -> String {
        measured(file, format).content.unwrap().unwrap_err()
    }

    proptest! {
        #[test]
        fn lines_are_leaves_wherever_they_are_cut(
            lines in proptest::collection::vec("[a-z]{0,9}", 1..50),
            long in 0..300_000usize,
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut lines = lines;
            lines.push("x".repeat(long));
            let content: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            let mut tree = Merkle::default();
            lines.iter().for_each(|line| tree.push(line.as_bytes()));
            // Both formats may consist of several parts.
            let (front, back) = content.as_bytes().split_at(cut.index(content.len()));
            for (format, file) in [
                (FileFormat::NdjsonZstd, [zstd(front), zstd(back)].concat()),
                (FileFormat::NdjsonGzip, [gzip(front), gzip(back)].concat()),
            ] {
                let measured = measured(&file, format);
                prop_assert_eq!((measured.bytes, measured.sha256), (file.len() as u64, Hash::of(&file)));
                let expected = Content {
                    records: lines.len() as u64,
                    raw_bytes: content.len() as u64,
                    root: Some(tree.root()),
                };
                prop_assert_eq!(measured.content, Some(Ok(expected)));
            }
        }
    }

    #[test]
    fn lines_are_given_one_by_one() {
        let file = zstd(b"{}\n\n{\"a\":1}\n");
        let mut lines = Lines::new(&file[..], FileFormat::NdjsonZstd).unwrap();
        for expected in ["{}", "", "{\"a\":1}"] {
            assert_eq!(lines.next_line().unwrap(), Some(expected.as_bytes()));
        }
        assert_eq!(lines.next_line().unwrap(), None);
        let file = gzip(b"{}\n{");
        let mut lines = Lines::new(&file[..], FileFormat::NdjsonGzip).unwrap();
        lines.next_line().unwrap();
        assert!(matches!(lines.next_line(), Err(NotRecords::Unfinished)));
    }

    #[test]
    fn no_line_is_longer_in_memory_than_one_may_be() {
        let file = gzip(b"1234567\n12345678\n123456789\n");
        let mut lines = Lines { longest: 8, ..Lines::new(&file[..], FileFormat::NdjsonGzip).unwrap() };
        assert_eq!(lines.next_line().unwrap(), Some(&b"1234567"[..]));
        assert_eq!(lines.next_line().unwrap(), Some(&b"12345678"[..]));
        assert!(matches!(lines.next_line(), Err(NotRecords::TooLong { bytes: 8 })));
        assert!(lines.line.len() < 10);
    }

    #[test]
    fn damage_is_told_and_the_hash_is_that_of_the_whole_file() {
        assert_eq!(why(&zstd(b"{}\n{}"), FileFormat::NdjsonZstd), "its last line has no line break");
        let whole = zstd(b"{}\n");
        assert!(
            why(&whole[..whole.len() - 1], FileFormat::NdjsonZstd).starts_with("it cannot be decompressed")
        );
        assert!(why(b"{}\n", FileFormat::NdjsonZstd).starts_with("it cannot be decompressed"));
        assert!(why(&zstd(b"{}\n"), FileFormat::NdjsonGzip).starts_with("it cannot be decompressed"));
        let trailing = [&whole[..], &[0; 300_000]].concat();
        assert!(why(&trailing, FileFormat::NdjsonZstd).starts_with("it cannot be decompressed"));
        assert_eq!(measured(&trailing, FileFormat::NdjsonZstd).sha256, Hash::of(&trailing));
        for bad in [&b""[..], b"PAR1", b"PAR1\xff\0\0\0PAR1", b"PAR1\x01\0\0\0\0PAR1"] {
            why(bad, FileFormat::Parquet);
        }
    }

    #[test]
    fn a_file_that_fails_is_an_error() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk"))
            }
        }
        let begun = zstd(b"{}\n");
        let lines = named(&begun, FileFormat::NdjsonZstd);
        assert!(measure((&begun[..6]).chain(Fails), lines.bytes, &lines, true).is_err());
        assert!(measure(Fails, 0, &named(b"", FileFormat::Parquet), true).is_err());
    }

    #[test]
    fn what_is_not_what_its_entry_names_is_hashed_and_not_looked_into() {
        let (file, other) = (zstd(b"{}\n"), zstd(b"{}\n{}\n"));
        let lines = named(&other, FileFormat::NdjsonZstd);
        let found = measure(&file[..], file.len() as u64, &lines, true).unwrap();
        assert_eq!((found.sha256, found.content), (Hash::of(&file), None), "it has another size");
        let columns = named(b"PAR1", FileFormat::Parquet);
        let found = measure(&b"PAR2"[..], 4, &columns, true).unwrap();
        assert_eq!((found.sha256, found.content), (Hash::of(b"PAR2"), None), "it has another hash");
        assert_eq!(measure(&b"PAR1"[..], 4, &columns, false).unwrap().content, None, "nobody signed it");
        assert!(measure(&b"PAR1"[..], 4, &columns, true).unwrap().content.is_some());
    }
}
