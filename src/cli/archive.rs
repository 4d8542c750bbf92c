//! The commands about archives. All of them work on the target of a configured sink; or on a folder alone and, but for `restore`, on a
//! machine without network or configuration.

use std::path::PathBuf;

use archive::Head;
use clap::{ArgGroup, Args, Subcommand};

use schemas::SinkName;

use super::{ConfigArgs, When};

pub(super) const ARCHIVE_HELP: &str = "\
Examples:
  mailtrail archive keygen --out archive.key
  mailtrail archive verify --directory /srv/archive --public-key archive.pub
  mailtrail archive prove --sink evidence --public-key archive.pub --id $ID --out proof.json
  mailtrail archive verify --proof proof.json --public-key archive.pub
  mailtrail archive list --directory /srv/archive --since 30d
  mailtrail archive restore --sink soc --since 2026-03-01 --until 2026-04-01

docs/archive-format.md describes the format, for whoever wants to verify without mailtrail.

Exit status: 0 ok, 1 something is not as the archive says, or was not found, 2 wrong usage or configuration.";

/// `mailtrail archive`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    /// Which configuration, for `--sink`.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: ArchiveCommand,
}

/// What can be done with archives.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Make a key that signs an archive's entries
    #[command(after_help = KEYGEN_HELP)]
    Keygen(KeygenArgs),
    /// Verify signatures, chains, every object's hash and records, and that nothing is missing; or a proof
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArgs),
    /// Make a small file that proves one record without the archive
    #[command(after_help = PROVE_HELP)]
    Prove(ProveArgs),
    /// List what an archive says that it holds; nothing is verified
    #[command(after_help = LIST_HELP)]
    List(ListArchiveArgs),
    /// Put archived records into one sink again
    #[command(after_help = RESTORE_HELP)]
    Restore(RestoreArgs),
}

const KEYGEN_HELP: &str = "\
Example:
  mailtrail archive keygen --out /etc/mailtrail/archive.key > archive.pub

The private key is written with the mode 0600 and never over another file. The public key goes to stdout: give it to whoever \
verifies, and keep it apart from the archive.";

/// `mailtrail archive keygen`.
#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// The file for the private key, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// Where the archive lies.
#[derive(Debug, Clone, Args)]
#[group(id = "where", required = true, multiple = false)]
pub(crate) struct PlaceArgs {
    /// The target of this sink of the configuration
    #[arg(long, value_name = "NAME")]
    pub(crate) sink: Option<SinkName>,
    /// The archive's folder, which may be a copy or a download
    #[arg(long, value_name = "FOLDER")]
    pub(crate) directory: Option<PathBuf>,
}

const VERIFY_HELP: &str = "\
Examples:
  mailtrail archive verify --sink evidence --public-key archive.pub
  mailtrail archive verify --directory /srv/archive --public-key archive.pub --json
  mailtrail archive verify --proof proof.json --public-key archive.pub

The key is that of each chain's first entry; keys that follow are named in the chain. Nothing in an archive tells that its last \
entries were cut off, but the log and the metric of whoever made it do: give what they show, such as 17:e3b0c4… with all digits, as --head.

Exit status: 0 everything is as the archive says, 1 it is not, and each thing is named, 2 wrong usage or configuration.";

/// `mailtrail archive verify`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(false).args(["sink", "directory", "proof"])))]
pub(crate) struct VerifyArgs {
    /// The target of this sink of the configuration
    #[arg(long, value_name = "NAME")]
    pub(crate) sink: Option<SinkName>,
    /// The archive's folder, which may be a copy or a download
    #[arg(long, value_name = "FOLDER")]
    pub(crate) directory: Option<PathBuf>,
    /// A proof that `prove` made, instead of an archive
    #[arg(long, value_name = "FILE", conflicts_with = "heads")]
    pub(crate) proof: Option<PathBuf>,
    /// A public key that is trusted, as PEM; can be repeated
    #[arg(long = "public-key", required = true, value_name = "FILE")]
    pub(crate) public_keys: Vec<PathBuf>,
    /// A head that was logged, which a chain must still have; can be repeated
    #[arg(long = "head", value_name = "NUMBER:HASH")]
    pub(crate) heads: Vec<Head>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const PROVE_HELP: &str = "\
Examples:
  mailtrail archive prove --sink evidence --public-key archive.pub --id $ID --out proof.json
  mailtrail archive prove --directory . --public-key archive.pub --since 7d --id $ID > proof.json

The proof holds the record, and what ties it to a signed entry. The key is that of each chain's first entry; keys that follow are \
named in the chain, and what none of them signed is not searched. Whoever checks the proof needs the key that signed the very entry, \
which is named. There is no index: without --since and --until every object is \
read; with them only those that may hold a record of that time.

Exit status: 0 the proof was made, 1 there is no such record, or it cannot be proved, 2 wrong usage or configuration.";

/// `mailtrail archive prove`.
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// Where the archive lies.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// A public key that is trusted, as PEM; can be repeated
    #[arg(long = "public-key", required = true, value_name = "FILE")]
    pub(crate) public_keys: Vec<PathBuf>,
    /// The record's Id
    #[arg(long, value_name = "RECORD")]
    pub(crate) id: String,
    /// The record's CreationTime is not before this: a day, a time in UTC, or how long ago
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub(crate) since: Option<When>,
    /// The record's CreationTime is before this
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub(crate) until: Option<When>,
    /// The file to write, which must not exist [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

const LIST_HELP: &str = "\
Examples:
  mailtrail archive list --directory /srv/archive
  mailtrail archive list --directory /srv/archive --since 2026-11-01 --objects
  mailtrail archive list --directory /srv/archive --json | jq '.entry.objects[].files[].path'

Exit status: 0 ok, 1 an entry cannot be read, 2 wrong usage or configuration.";

/// `mailtrail archive list`.
#[derive(Debug, Args)]
pub(crate) struct ListArchiveArgs {
    /// Where the archive lies.
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Only entries that end after this: a day, a time in UTC, or how long ago
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub(crate) since: Option<When>,
    /// Only entries that begin before this
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub(crate) until: Option<When>,
    /// A row for each file of an object, instead of each entry
    #[arg(long)]
    pub(crate) objects: bool,
    /// Print each entry as JSON, one a line
    #[arg(long, conflicts_with = "objects")]
    pub(crate) json: bool,
}

const RESTORE_HELP: &str = "\
Examples:
  mailtrail archive restore --sink soc --since 2026-03-01 --until 2026-04-01 --dry-run
  mailtrail archive restore --sink soc --since 2026-03-01 --until 2026-04-01
  mailtrail archive restore --sink soc --since 30d --until 7d --mailboxes cfo@contoso.com
  mailtrail archive restore --sink soc --directory /mnt/copy --since 2026-03-02 --until 2026-03-03

The records are new work for this sink alone: rendered anew, past the duplicate check, through the sink's own filter, with the event \
ids that they had, counted apart. A running mailtrail delivers them at once, otherwise the next `run` does. Each object is verified \
before a record of it is used; from one that is damaged nothing is restored, and the others are not concerned. Interrupted anywhere, \
the same command goes on where it was.

Exit status: 0 everything that was asked for is put back, or there is nothing, 1 something is not, and is named, 2 wrong usage or \
configuration.";

/// `mailtrail archive restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The sink that gets the records
    #[arg(long, value_name = "NAME")]
    pub(crate) sink: SinkName,
    /// The archive sink whose target they come from [default: the only one that is configured]
    #[arg(long, value_name = "NAME", conflicts_with = "directory")]
    pub(crate) from: Option<SinkName>,
    /// The archive's folder, which may be a copy or a download, instead
    #[arg(long, value_name = "FOLDER")]
    pub(crate) directory: Option<PathBuf>,
    /// Their CreationTime is not before this: a day, a time in UTC, or how long ago
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub(crate) since: When,
    /// Their CreationTime is before this
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub(crate) until: When,
    /// Only this tenant's, by its name in the configuration or its id; can be repeated
    #[arg(long = "tenant", value_name = "TENANT")]
    pub(crate) tenants: Vec<String>,
    /// Only these operations, such as MailItemsAccessed,Send*
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) operations: Vec<String>,
    /// Only what these users did (UserId)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) users: Vec<String>,
    /// Only what was done to these mailboxes, by their owners' addresses or GUIDs
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) mailboxes: Vec<String>,
    /// Only count what would be put back
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Begin with the first record again, although the same restore is unfinished
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) anew: bool,
}
