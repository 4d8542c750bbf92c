//! The columns of a twin, and how they are stored.

use ::parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    errors::Result,
    file::{
        metadata::SortingColumn,
        properties::{BloomFilterPosition, EnabledStatistics, WriterProperties},
    },
    schema::{
        parser::parse_message_type,
        types::{ColumnPath, Type},
    },
};

use super::{ParquetOptions, SortBy};

/// The columns that are looked things up by.
const LOOKED_UP: [&str; 4] = ["id", "user", "mailbox", "client_ip"];
/// The most different values that a Bloom filter of a row group is made for: more than a row group has rows.
const DISTINCT: u64 = 128 * 1024;
/// A page holds so many rows, so that a query reads little beside what it asks for.
pub(super) const PAGE_ROWS: usize = 1024;
const PAGE_BYTES: usize = 256 * 1024;

/// Where `user` and `time` are among the columns.
const USER: i32 = 5;
const TIME: i32 = 1;

/// The columns, in the order in which `columns.rs` writes them.
pub(super) fn schema(raw: bool) -> Result<Type> {
    let raw = if raw { "optional binary raw (string);" } else { "" };
    parse_message_type(&format!(
        "message mailtrail {{
            optional binary id (string);
            optional int64 time (timestamp(millis, true));
            optional int32 record_type;
            optional binary operation (string);
            optional binary workload (string);
            optional binary user (string);
            optional int32 user_type;
            optional binary user_key (string);
            optional binary mailbox (string);
            optional binary client_ip (string);
            optional binary object (string);
            optional binary result_status (string);
            optional int32 class_uid;
            required group tags (list) {{ repeated group list {{ required binary element (string); }} }}
            required binary tenant_id (string);
            required binary feed (string);
            {raw}
        }}"
    ))
}

pub(super) fn properties(options: &ParquetOptions) -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let sorted = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
    let sorting = match options.sort_by {
        SortBy::Time => vec![sorted(TIME)],
        SortBy::User => vec![sorted(USER), sorted(TIME)],
    };
    let mut properties = WriterProperties::builder()
        .set_created_by("mailtrail".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_bloom_filter_position(BloomFilterPosition::AfterRowGroup)
        .set_bloom_filter_for_dictionary_encoded_chunks(true)
        .set_sorting_columns(Some(sorting))
        // Nearly each value is there once, so a dictionary would only be one more thing to read.
        .set_column_dictionary_enabled(column("id"), false)
        .set_column_dictionary_enabled(column("time"), false)
        .set_column_encoding(column("time"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("raw"), false)
        // Nobody looks for a record by the beginning of its bytes.
        .set_column_statistics_enabled(column("raw"), EnabledStatistics::None);
    for name in LOOKED_UP {
        properties = properties
            .set_column_bloom_filter_enabled(column(name), true)
            .set_column_bloom_filter_fpp(column(name), 0.01)
            .set_column_bloom_filter_max_ndv(column(name), DISTINCT);
    }
    properties.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sorting_columns_are_where_they_are_said_to_be() {
        let schema = schema(true).unwrap();
        let name = |at: i32| schema.get_fields()[usize::try_from(at).unwrap()].name().to_owned();
        assert_eq!((name(USER), name(TIME)), ("user".to_owned(), "time".to_owned()));
    }
}
