//! The engine: `regorus`.
//!
//! Its interpreter runs policies; its compiler to bytecode only reads them first, and says which functions there are, what
//! builds on what, and where they are wrong. Bytecode is not run: there an error inside a `not` is no error but undefined,
//! and would allow.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use regorus::{
    Engine as Interpreter, Value,
    languages::rego::compiler::Compiler,
    rvm::{Instruction, Program},
    utils::limits::ExecutionTimerConfig,
};

use super::Undecided;

/// Steps between looks at the clock: some microseconds.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(64).unwrap();

/// What a policy may not call, and why. Memory that a number of the caller's asks for is taken in one step, which no clock
/// interrupts.
const REFUSED: &[(&str, &str)] = &[
    ("bits.lsh", UNBOUNDED),
    ("net.cidr_expand", UNBOUNDED),
    ("numbers.range", UNBOUNDED),
    ("numbers.range_step", UNBOUNDED),
    ("rand.intn", "it has another answer each time"),
];

const UNBOUNDED: &str = "what it makes of a request has no bound";
const PRINTS: &str = "it would write what it sees past the log; ask warifu policy explain";

/// How deep rules may build on one another. Each level takes stack, of which there is an end ([`super::threads`]).
const MAX_DEPTH: usize = 32;

/// A policy, prepared. Who runs it takes a copy, which shares all that does not change.
#[derive(Debug)]
pub(super) struct Engine {
    prepared: Interpreter,
    query: String,
}

impl Engine {
    pub(super) fn compile(sources: Vec<(String, String)>, query: &str) -> Result<Self, String> {
        let mut prepared = Interpreter::new();
        for (name, text) in &sources {
            let added = prepared.add_policy(name.clone(), text.clone());
            added.map_err(|why| shown(&why))?;
        }
        let compiled = prepared.compile_with_entrypoint(&query.into());
        let compiled = compiled.map_err(|why| format!("{query}: {}", shown(&why)))?;
        let program = Compiler::compile_from_policy(&compiled, &[query]);
        let program = program.map_err(|why| match shown(&why) {
            // It is no builtin of bytecode.
            why if why.ends_with("builtin function: print") => refused("print", PRINTS, &sources),
            why => why,
        })?;
        let called = |name: &str| program.builtin_info_table.iter().any(|it| it.name == name);
        if let Some((name, why)) = REFUSED.iter().find(|(name, _)| called(name)) {
            return Err(refused(name, why, &sources));
        }
        refuse_unbounded(&program)?;
        Ok(Self {
            prepared,
            query: query.to_owned(),
        })
    }

    pub(super) fn evaluate(&self, input: &str, within: Duration) -> Result<bool, Undecided> {
        let (began, failed) = (Instant::now(), Undecided::Failed);
        let input = Value::from_json_str(input).map_err(|why| failed(shown(&why)))?;
        // Its own: nothing is left of one request for the next.
        let mut engine = self.prepared.clone();
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: within,
            check_interval: CHECK_INTERVAL,
        });
        engine.set_input(input);
        match engine.eval_rule(self.query.clone()) {
            Ok(Value::Bool(allow)) => Ok(allow),
            Ok(Value::Undefined) => Ok(false),
            Ok(_) => Err(failed("its answer is neither true nor false".to_owned())),
            // However deep inside it time ran out.
            Err(_) if began.elapsed() >= within => Err(Undecided::Late(within)),
            Err(why) => Err(failed(shown(&why))),
        }
    }
}

/// That `name` is not to be called. The program does not know where it was: the first line that has it is shown.
fn refused(name: &str, why: &str, sources: &[(String, String)]) -> String {
    let place = sources.iter().find_map(|(file, text)| {
        let calls = |line: &str| line.split('#').next().is_some_and(|it| it.contains(name));
        let line = text.lines().position(calls)?;
        Some(format!("{file}:{}: ", line + 1))
    });
    let place = place.unwrap_or_default();
    format!("{place}{name} is not for policies: {why}")
}

/// Refuses what could take more stack than there is: that would end the process, and no time limit helps.
fn refuse_unbounded(program: &Program) -> Result<(), String> {
    if program.needs_runtime_recursion_check {
        return Err(
            "a rule is looked up by what the request says; name it, or look up in an object"
                .to_owned(),
        );
    }
    let calls = calls(program);
    let mut depths = vec![0; program.rule_infos.len()];
    for _ in 0..=MAX_DEPTH {
        let mut changed = false;
        for (caller, callee) in &calls {
            let below = depths.get(*callee).map_or(0, |depth| depth + 1);
            if let Some(depth) = depths.get_mut(*caller).filter(|depth| **depth < below) {
                (*depth, changed) = (below, true);
            }
        }
        if !changed {
            break;
        }
    }
    let deepest = program.rule_infos.iter().zip(depths);
    match deepest.max_by_key(|(_, depth)| *depth) {
        Some((rule, depth)) if depth > MAX_DEPTH => Err(format!(
            "{} builds on itself, or on rules more than {MAX_DEPTH} deep",
            rule.name
        )),
        _ => Ok(()),
    }
}

/// Which rule builds on which. The instructions of a rule stand together, from where the first of its bodies begins.
fn calls(program: &Program) -> Vec<(usize, usize)> {
    let rules = program.rule_infos.iter().enumerate();
    let mut begins: Vec<(usize, usize)> = rules
        .filter_map(|(rule, info)| {
            let bodies = info.definitions.iter().flatten();
            let parameters = info.destructuring_blocks.iter().flatten();
            let first = bodies.chain(parameters).min()?;
            Some((usize::try_from(*first).ok()?, rule))
        })
        .collect();
    begins.sort_unstable();
    let calls = program.instructions.iter().enumerate();
    let calls = calls.filter_map(|(place, instruction)| {
        let callee = match instruction {
            Instruction::CallRule { rule_index, .. } => *rule_index,
            Instruction::FunctionCall { params_index } => {
                let calls = &program.instruction_data.function_call_params;
                calls.get(usize::from(*params_index))?.func_rule_index
            }
            _ => return None,
        };
        let after = begins.partition_point(|(begin, _)| *begin <= place);
        let (_, caller) = begins.get(after.checked_sub(1)?)?;
        Some((*caller, usize::from(callee)))
    });
    calls.collect()
}

/// In one line, which begins with the place, as other mistakes do.
///
/// ```text
/// --> /etc/warifu/policy.rego:3:10
///   |
/// 3 | allow if no_such_function(1)
///   |          ^
/// error: Unknown function: 'no_such_function'
/// ```
fn shown(why: &impl std::fmt::Display) -> String {
    let text = format!("{why:#}");
    let text = text.trim();
    let place = text.strip_prefix("--> ").and_then(|it| it.lines().next());
    let error = text.split_once("\nerror: ").map(|(_, error)| error.trim());
    match (place, error) {
        (Some(place), Some(error)) => format!("{place}: {error}"),
        _ => text.to_owned(),
    }
}
