//! What the bytes of an answer look like.

use crate::{
    encoded, engine, view,
    world::{Held, World},
};
use arrow::ipc::reader::StreamReader;
use query::output::Format;
use query::{Bounds, Engine, View, output};
use std::io::Cursor;

const EVERY_TYPE: &str = r#"SELECT
  1 AS small, 9007199254740993 AS big, CAST(18446744073709551615 AS BIGINT UNSIGNED) AS unsigned,
  0.1 AS float, 1e300 AS huge, 'NaN'::double AS nan, 100.0::double AS whole, CAST(0.1 AS FLOAT) AS single,
  CAST('0.000123000' AS DECIMAL(18,9)) AS money, CAST('-12.500000000' AS DECIMAL(18,9)) AS debt, CAST(7 AS DECIMAL(18,9)) AS seven,
  true AS yes, NULL AS nothing, 'a "quoted", text
on two lines' AS text, '' AS empty,
  arrow_cast('blue', 'Dictionary(Int32, Utf8)') AS word,
  arrow_cast(TIMESTAMP '2026-11-20T14:03:05.120Z', 'Timestamp(Nanosecond, Some("UTC"))') AS at,
  arrow_cast(TIMESTAMP '2026-11-20T14:03:05', 'Timestamp(Second, None)') AS naive,
  DATE '2026-11-20' AS day, [1, NULL, 3] AS list, {'a': 1, 'b': NULL} AS object,
  MAP {'k': 'v', 'n': NULL} AS map"#;

async fn text(engine: &Engine, view: View, sql: &str, format: Format) -> String {
    let bytes = encoded(engine, view, sql, format)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn json_keeps_every_digit_and_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let json = text(&engine(dir.path()), View::default(), EVERY_TYPE, Format::Json).await;
    let expected = concat!(
        r#"{"columns":[{"name":"small","type":"int64"},{"name":"big","type":"int64"},{"name":"unsigned","type":"uint64"},"#,
        r#"{"name":"float","type":"float64"},{"name":"huge","type":"float64"},{"name":"nan","type":"float64"},{"name":"whole","type":"float64"},{"name":"single","type":"float32"},"#,
        r#"{"name":"money","type":"decimal(18,9)"},{"name":"debt","type":"decimal(18,9)"},{"name":"seven","type":"decimal(18,9)"},"#,
        r#"{"name":"yes","type":"boolean"},{"name":"nothing","type":"null"},{"name":"text","type":"text"},{"name":"empty","type":"text"},"#,
        r#"{"name":"word","type":"text"},{"name":"at","type":"timestamp"},{"name":"naive","type":"timestamp"},{"name":"day","type":"date"},"#,
        r#"{"name":"list","type":"list<int64>"},{"name":"object","type":"struct"},{"name":"map","type":"map"}],"rows":["#,
        "\n",
        r#"[1,9007199254740993,18446744073709551615,0.1,1e+300,null,100.0,0.1,0.000123,-12.5,7,true,null,"a \"quoted\", text\non two lines","","#,
        r#""blue","2026-11-20T14:03:05.120Z","2026-11-20T14:03:05Z","2026-11-20",[1,null,3],{"a":1,"b":null},{"k":"v","n":null}]"#,
        "\n]}\n",
    );
    assert_eq!(json, expected);
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
}

#[tokio::test]
async fn csv_quotes_what_it_must_and_tells_null_from_empty() {
    let dir = tempfile::tempdir().unwrap();
    let csv = text(&engine(dir.path()), View::default(), EVERY_TYPE, Format::Csv).await;
    let expected = concat!(
        "small,big,unsigned,float,huge,nan,whole,single,money,debt,seven,yes,nothing,text,empty,word,at,naive,day,list,object,map\r\n",
        "1,9007199254740993,18446744073709551615,0.1,1e+300,,100.0,0.1,0.000123,-12.5,7,true,,",
        "\"a \"\"quoted\"\", text\non two lines\",\"\",blue,2026-11-20T14:03:05.120Z,2026-11-20T14:03:05Z,2026-11-20,",
        "\"[1,null,3]\",\"{\"\"a\"\":1,\"\"b\"\":null}\",\"{\"\"k\"\":\"\"v\"\",\"\"n\"\":null}\"\r\n",
    );
    assert_eq!(csv, expected);
}

#[tokio::test]
async fn an_empty_answer_still_has_its_columns() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path());
    let sql = "SELECT trace_id, color FROM spans";
    let json = text(&engine, View::default(), sql, Format::Json).await;
    assert_eq!(
        json,
        "{\"columns\":[{\"name\":\"trace_id\",\"type\":\"text\"},{\"name\":\"color\",\"type\":\"text\"}],\"rows\":[]}\n"
    );
    assert_eq!(
        text(&engine, View::default(), sql, Format::Csv).await,
        "trace_id,color\r\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arrow_stream_reads_back_as_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 40 }.write(dir.path(), Held::Half);
    let engine = engine(dir.path());
    let sql = "SELECT * FROM spans ORDER BY span_id";
    let bytes = encoded(&engine, view(&snapshot), sql, Format::Arrow).await.unwrap();
    let read: usize = StreamReader::try_new(Cursor::new(bytes), None)
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    // The second records of 10 calls among them.
    assert_eq!(read, 90);
}

#[tokio::test]
async fn a_table_is_aligned() {
    let dir = tempfile::tempdir().unwrap();
    let sql = "SELECT * FROM (VALUES ('blue', 1, 0.5), ('green', 20, NULL)) AS t (color, n, rate)";
    let answer = engine(dir.path()).run(View::default(), sql).await.unwrap();
    let rows = answer.collect(Bounds::default()).await.unwrap();
    let expected = "color   n  rate\n-----  --  ----\nblue    1   0.5\ngreen  20\n";
    assert_eq!(output::table(&rows).unwrap(), expected);
}

#[test]
fn accept_chooses_the_format() {
    for (accept, format) in [
        ("*/*", Format::Json),
        ("", Format::Json),
        ("text/html, text/csv;q=0.9", Format::Csv),
        ("application/vnd.apache.arrow.stream", Format::Arrow),
    ] {
        assert_eq!(Format::from_accept(accept), format, "{accept}");
    }
}
