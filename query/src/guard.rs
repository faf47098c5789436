//! The one read-only guard that stands before every surface.
//!
//! Three fences, each enough alone for what it covers: the statement (exactly one, of a closed list of kinds, nothing
//! that writes nested inside), the plan (no DDL, DML, COPY or session statement), and the object store registry of
//! [`crate::limits`] (nothing but sealed files can be opened, by whatever name).

use crate::QueryError;
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    execution::context::SQLOptions,
    logical_expr::{Expr, LogicalPlan},
    sql::{
        parser::{DFParserBuilder, Statement},
        sqlparser::{
            ast::{self, SetExpr, Visit, Visitor},
            dialect::GenericDialect,
            keywords::Keyword,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use std::{collections::VecDeque, ops::ControlFlow};

/// Longest statement, bytes.
pub const SQL_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting the parser follows.
const NESTING_MAX: usize = 50;
/// Most keywords and operators; see [`STACK_BYTES`].
const OPERATORS_MAX: usize = 1_000;
/// Most columns that a window is partitioned by: DataFusion 55 holds every order of them, and 12! would end the process.
const PARTITION_COLUMNS_MAX: usize = 6;
/// Stack of the threads that parse, plan and run: enough for a chain of [`OPERATORS_MAX`] in an unoptimized build.
pub const STACK_BYTES: usize = 64 << 20;

/// Parses `sql` into exactly one read-only statement.
pub fn parse(sql: &str) -> Result<Statement, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(QueryError::TooLong {
            limit: SQL_BYTES_MAX as u64,
            unit: "bytes",
        });
    }
    check_size(sql)?;
    let statement = parsed(sql)?;
    check_statement(&statement)?;
    Ok(match &statement {
        Statement::Statement(inner) if is_bare_show_tables(inner) => parsed(SHOW_TABLES)?,
        _ => statement,
    })
}

/// Bounds how deep a plan can get. The parser bounds nesting, but `1 + 1 + 1 + ...` and `a OR b OR ...` are loops to it
/// and deep trees to everything after; an overflowing stack would end the whole process. Long lists are no danger.
fn check_size(sql: &str) -> Result<(), QueryError> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize()
        .map_err(|e| QueryError::Invalid(format!("cannot parse: {e}")))?;
    let is_operator = |token: &&Token| match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Whitespace(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen => false,
        _ => true,
    };
    if tokens.iter().filter(is_operator).count() > OPERATORS_MAX {
        return Err(QueryError::TooLong {
            limit: OPERATORS_MAX as u64,
            unit: "keywords and operators",
        });
    }
    Ok(())
}

/// What `SHOW TABLES` reads: our own tables and views, in order.
const SHOW_TABLES: &str = "SELECT table_name, table_type FROM information_schema.tables
    WHERE table_schema = 'public' ORDER BY table_type, table_name";

fn is_bare_show_tables(statement: &ast::Statement) -> bool {
    matches!(statement, ast::Statement::ShowTables { show_options, .. } if show_options.show_in.is_none()
        && show_options.filter_position.is_none())
}

fn parsed(sql: &str) -> Result<Statement, QueryError> {
    let mut statements = statements(sql)?;
    let count = statements.len();
    match (statements.pop_front(), count) {
        (Some(only), 1) => Ok(only),
        (_, 0) => Err(QueryError::Forbidden("there is no statement".to_owned())),
        (_, more) => Err(QueryError::Forbidden(format!("there are {more} statements"))),
    }
}

fn statements(sql: &str) -> Result<VecDeque<Statement>, QueryError> {
    DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(NESTING_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(QueryError::planning)
}

fn check_statement(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(inner) => match inner.visit(&mut ReadOnly) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(what) => Err(QueryError::Forbidden(what)),
        },
        Statement::Explain(explain) => check_statement(&explain.statement),
        Statement::CopyTo(_) => forbidden("COPY"),
        Statement::CreateExternalTable(_) => forbidden("CREATE EXTERNAL TABLE"),
        Statement::Reset(_) => forbidden("RESET"),
    }
}

fn forbidden<T>(what: &str) -> Result<T, QueryError> {
    Err(QueryError::Forbidden(format!("{what} is not allowed")))
}

/// Breaks with the reason at the first thing that isn't a plain read.
struct ReadOnly;

impl Visitor for ReadOnly {
    type Break = String;

    fn pre_visit_statement(&mut self, statement: &ast::Statement) -> ControlFlow<String> {
        match statement {
            ast::Statement::Query(_)
            | ast::Statement::Explain { .. }
            | ast::Statement::ExplainTable { .. }
            | ast::Statement::ShowTables { .. }
            | ast::Statement::ShowColumns { .. }
            | ast::Statement::ShowFunctions { .. }
            | ast::Statement::ShowVariable { .. } => ControlFlow::Continue(()),
            other => {
                let text = other.to_string();
                let word = text.split_whitespace().next().unwrap_or("this");
                ControlFlow::Break(format!("{} is not allowed", word.to_ascii_uppercase()))
            }
        }
    }

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<String> {
        if !query.locks.is_empty() {
            return ControlFlow::Break("FOR UPDATE and FOR SHARE are not allowed".to_owned());
        }
        check_body(&query.body)
    }
}

fn check_body(body: &SetExpr) -> ControlFlow<String> {
    match body {
        SetExpr::Select(select) if select.into.is_some() => ControlFlow::Break("SELECT INTO is not allowed".to_owned()),
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => ControlFlow::Continue(()),
        SetExpr::SetOperation { left, right, .. } => {
            check_body(left)?;
            check_body(right)
        }
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            ControlFlow::Break("a data-modifying WITH is not allowed".to_owned())
        }
    }
}

/// Refuses a plan that would write, define or set anything, and windows that cannot be planned.
pub fn check_plan(plan: &LogicalPlan) -> Result<(), QueryError> {
    check_windows(plan)?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|e| QueryError::Forbidden(e.strip_backtrace()))
}

fn check_windows(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut widest = 0;
    let seen = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Window(window) = node {
            for expr in &window.window_expr {
                expr.apply(|inner| {
                    if let Expr::WindowFunction(function) = inner {
                        widest = widest.max(function.params.partition_by.len());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    seen.map_err(QueryError::planning)?;
    if widest > PARTITION_COLUMNS_MAX {
        return Err(QueryError::Invalid(format!(
            "a window is partitioned by {widest} columns, at most {PARTITION_COLUMNS_MAX} can be planned; \
             join them into one with concat_ws('|', a, b, ...)"
        )));
    }
    Ok(())
}
