//! What the command line prints, as people see it.

use crate::kill::tracegate;

fn run(args: &[&str]) -> (bool, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = tracegate(dir.path()).args(args).env("COLUMNS", "100").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_command_has_help_with_an_example() {
    let (_, all, _) = run(&["--help"]);
    insta::assert_snapshot!("help", all);
    for command in [
        "serve",
        "check",
        "import",
        "backtest",
        "sql",
        "status",
        "top",
        "promote",
        "advance",
        "rollback",
        "hold",
        "resume",
        "decisions",
        "explain",
        "verify",
        "mute",
        "freeze",
        "ack",
        "init",
        "prices",
        "completions",
    ] {
        let (ok, help, _) = run(&[command, "--help"]);
        assert!(ok && help.contains("Example"), "{command}: {help}");
        insta::assert_snapshot!(format!("help_{command}"), help);
    }
}

#[test]
fn errors_go_to_stderr_and_say_what_to_do() {
    let unreachable = "http://127.0.0.1:9";
    for (name, args) in [
        ("no_server", vec!["sql", "--server", unreachable, "SELECT 1"]),
        ("no_server_address", vec!["status", "--server", "ftp://x"]),
        ("no_data_directory", vec!["sql", "--data-dir", "nowhere", "SELECT 1"]),
        ("no_config", vec!["serve", "--config", "nowhere.toml"]),
        ("no_file_to_check", vec!["check", "nowhere.toml"]),
        ("no_question", vec!["sql"]),
        ("wrong_address", vec!["serve", "--http", "4320"]),
        ("no_reason", vec!["rollback", "chat"]),
        ("no_server_to_watch", vec!["top", "--server", unreachable]),
        ("too_short_an_interval", vec!["top", "--interval", "1ms"]),
    ] {
        let (ok, out, err) = run(&args);
        assert!(!ok, "{name}");
        assert_eq!(out, "", "{name}");
        insta::assert_snapshot!(format!("error_{name}"), err);
    }
}

#[test]
fn prices_and_completions_need_no_server() {
    let (ok, prices, _) = run(&["prices", "gpt-4o-mini"]);
    assert!(ok && prices.contains("0.15") && prices.contains("openai"), "{prices}");
    let (ok, script, _) = run(&["completions", "bash"]);
    assert!(ok && script.contains("_tracegate"), "{script}");
}
