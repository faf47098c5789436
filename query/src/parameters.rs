//! Values for the parameters of a statement (`$release`, `$admitted_before`), put into its syntax tree as literals.
//!
//! The text is parsed first and never changes: a value cannot become syntax, whatever it holds. Values are literals and
//! not placeholders of the plan, so that they may stand wherever a literal may (arguments of table functions,
//! `$admitted_before - INTERVAL '1 day'`), and so that files are pruned by them.

use crate::QueryError;
use datafusion::sql::{
    parser::Statement,
    sqlparser::{
        ast::{Expr, Value, VisitMut, VisitorMut},
        dialect::GenericDialect,
        parser::Parser,
    },
};
use proto::Nanos;
use std::ops::ControlFlow;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// A text.
    Text(String),
    /// A moment: `timestamp(ns, UTC)`.
    Time(Nanos),
}

/// Named values of one statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    values: Vec<(&'static str, Parameter)>,
    all_used: bool,
}

impl Parameters {
    /// The same with a text called `$name`.
    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        self.values.push((name, Parameter::Text(value.to_owned())));
        self
    }

    /// The same with a moment called `$name`.
    pub fn time(mut self, name: &'static str, value: Nanos) -> Self {
        self.values.push((name, Parameter::Time(value)));
        self
    }

    /// The same, for a statement that must use every one of them.
    pub fn all_used(self) -> Self {
        Self { all_used: true, ..self }
    }

    /// Puts the values in their places.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if the statement has a parameter that is not among them, or lacks one it must use.
    pub fn bind(&self, statement: &mut Statement) -> Result<(), QueryError> {
        if self.values.is_empty() {
            return Ok(());
        }
        let mut binding = Binding {
            literals: Vec::with_capacity(self.values.len()),
        };
        for (name, value) in &self.values {
            binding.literals.push((*name, literal(value)?, false));
        }
        let bound = match statement {
            Statement::Statement(inner) => inner.visit(&mut binding),
            Statement::Explain(explain) => return self.bind(&mut explain.statement),
            // Refused by the guard before.
            Statement::CopyTo(_) | Statement::CreateExternalTable(_) | Statement::Reset(_) => return Ok(()),
        };
        match bound {
            ControlFlow::Continue(()) => match binding.literals.iter().find(|(.., used)| self.all_used && !used) {
                Some((name, ..)) => Err(QueryError::Invalid(format!("the statement does not use ${name}"))),
                None => Ok(()),
            },
            ControlFlow::Break(unknown) => {
                let known: Vec<String> = self.values.iter().map(|(name, _)| format!("${name}")).collect();
                Err(QueryError::Invalid(format!(
                    "the parameter {unknown} has no value; use {}",
                    known.join(" and ")
                )))
            }
        }
    }
}

struct Binding {
    /// Name, value, whether it was used.
    literals: Vec<(&'static str, Expr, bool)>,
}

impl VisitorMut for Binding {
    type Break = String;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        let Expr::Value(value) = expr else {
            return ControlFlow::Continue(());
        };
        let Value::Placeholder(name) = &value.value else {
            return ControlFlow::Continue(());
        };
        let bare = name.trim_start_matches('$');
        match self.literals.iter_mut().find(|(known, ..)| *known == bare) {
            Some((_, literal, used)) => {
                *used = true;
                *expr = literal.clone();
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(name.clone()),
        }
    }
}

fn literal(value: &Parameter) -> Result<Expr, QueryError> {
    match value {
        Parameter::Text(text) => Ok(Expr::Value(Value::SingleQuotedString(text.clone()).into())),
        Parameter::Time(at) => {
            // Written by us from a number alone.
            let sql = format!("arrow_cast({}, 'Timestamp(Nanosecond, Some(\"UTC\"))')", at.0);
            let mut parser = Parser::new(&GenericDialect {})
                .try_with_sql(&sql)
                .map_err(|e| QueryError::Failed(e.to_string()))?;
            parser.parse_expr().map_err(|e| QueryError::Failed(e.to_string()))
        }
    }
}
