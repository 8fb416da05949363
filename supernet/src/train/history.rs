//! Under which plans the steps of a run were taken. What lies behind a checkpoint stays as it was; what lies before it may
//! be planned anew.

use network::checkpoint::NESTEROV;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{TrainingPlan, hash_of};
use super::run_folder::RunFolder;
use crate::error::Result;

/// A plan, as `plan.json` holds it, and the step from which on it was followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub from_step: u64,
    pub plan: Value,
}

/// The plans of a run, in order; never empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct History(Vec<Begun>);

/// In what two plans differ: the field, and its two values.
pub(super) type Difference = (String, String, String);

impl History {
    /// Of a run that begins.
    pub(super) fn new(plan: &TrainingPlan) -> Self {
        Self(vec![Begun { from_step: 0, plan: value_of(plan) }])
    }

    /// Of the parts of `plan.json`.
    pub(super) fn of(mut earlier: Vec<Begun>, from_step: u64, plan: Value) -> Self {
        earlier.push(Begun { from_step, plan });
        Self(earlier)
    }

    /// The plans before the last.
    pub(super) fn earlier(&self) -> &[Begun] {
        &self.0[..self.0.len() - 1]
    }

    /// The plan that is followed, and from where on.
    pub(super) fn last(&self) -> &Begun {
        self.0.last().expect("never empty")
    }

    /// Of one plan its own; of several that of the list.
    pub(super) fn hash(&self) -> String {
        match &self.0[..] {
            [only] => hash_of(&only.plan),
            several => hash_of(&several),
        }
    }

    /// The history of a run that is taken up after `step` steps with `plan`, and what is new in that, in words. The
    /// checkpoint was made under plans of hash `made_under`.
    ///
    /// # Errors
    /// If the plan has something else behind the checkpoint, or nothing is known of the plan of the steps behind.
    pub(super) fn taken_up(
        folder: &RunFolder,
        (made_under, step): (&str, u64),
        plan: &TrainingPlan,
    ) -> Result<(Self, Option<String>)> {
        if plan.hash() == made_under {
            return Ok((Self::new(plan), None));
        }
        let known = folder.history().and_then(|written| written.ending_with(made_under));
        let Some(mut history) = known else { return Err(folder.other_plan(plan)) };
        let now = value_of(plan);
        if history.last().plan == now {
            return Ok((history, None));
        }
        if let Some(difference) = behind(&history.last().plan, &now, step) {
            return Err(folder.differs(difference));
        }
        let new = first_difference("plan", &history.last().plan, &now);
        history.0.retain(|begun| begun.from_step < step);
        if history.0.last().is_none_or(|last| last.plan != now) {
            let from_step = if history.0.is_empty() { 0 } else { step };
            history.0.push(Begun { from_step, plan: now });
        }
        Ok((history, new.map(|(field, before, now)| format!("{field} {before} before, {now} now"))))
    }

    /// The first plans, which have this hash: the last may have been written down by a process that took no step under it.
    fn ending_with(mut self, hash: &str) -> Option<Self> {
        while !self.0.is_empty() {
            if self.hash() == hash {
                return Some(self);
            }
            self.0.pop();
        }
        None
    }
}

fn value_of(plan: &TrainingPlan) -> Value {
    serde_json::to_value(plan).expect("plain data")
}

/// Fields of a phase that the steps to come alone depend on, where it has begun and not ended.
const STILL_OPEN: [&str; 11] = [
    "name",
    "epochs",
    "warmup_epochs",
    "lr",
    "scaled_lr",
    "steps",
    "warmup_steps",
    "subnetworks",
    "draw",
    "distill",
    "teacher",
];

/// In what the plan `now` is another than `before` for the steps behind step `step`. Phases that have ended are as they
/// were. The one that has begun goes on with what its sub-networks are drawn from, under other rates and numbers of steps;
/// it still has a step to take. The file that teaches is another only where it has taught and is to teach again.
fn behind(before: &Value, now: &Value, step: u64) -> Option<Difference> {
    let [kind_before, kind_now] = [before, now].map(optimizer_of);
    if kind_before != kind_now {
        return Some((OPTIMIZER.to_string(), kind_before.to_string(), kind_now.to_string()));
    }
    let phases = |plan: &Value| plan["phases"].as_array().cloned().unwrap_or_default();
    let mut old = phases(before);
    let mut new = phases(now);
    old.retain(|phase| number(phase, "first_step") < step);
    new.truncate(old.len());
    let by_file = |phases: &[Value]| phases.iter().any(|phase| phase["teacher"] == "file");
    let has_file = by_file(&old) && by_file(&new);
    let too_few = open_last(&mut old, &mut new, step);
    let taken = |plan: &Value, phases: Vec<Value>| {
        let mut plan = plan.clone();
        // what the recipe is called decides nothing
        if let Some(fields) = plan.as_object_mut() {
            fields.remove("recipe");
            if !has_file {
                fields.remove("teacher");
            }
        }
        plan["phases"] = phases.into();
        plan
    };
    first_difference("plan", &taken(before, old), &taken(now, new)).or(too_few)
}

/// Removes from the last of the phases that have begun, if it has not ended, what may change of it; says so if no step of
/// it would be left.
fn open_last(old: &mut [Value], new: &mut [Value], step: u64) -> Option<Difference> {
    let (index, last) = old.iter_mut().enumerate().next_back()?;
    let done = step - number(last, "first_step");
    let going_on = new.get_mut(index).filter(|_| done < number(last, "steps"))?;
    let left = number(going_on, "steps");
    for phase in [last, going_on].into_iter().filter_map(Value::as_object_mut) {
        STILL_OPEN.iter().for_each(|field| drop(phase.remove(*field)));
    }
    (left <= done).then(|| {
        let expected = format!("more than the {done} that are taken");
        (format!("plan.phases[{}].steps", index + 1), expected, left.to_string())
    })
}

fn number(phase: &Value, field: &str) -> u64 {
    phase[field].as_u64().unwrap_or(u64::MAX)
}

/// The field of a plan that names the optimizer, if it is not Nesterov's.
pub(super) const OPTIMIZER: &str = "plan.optimizer";

/// What the optimizer of a plan is called.
fn optimizer_of(plan: &Value) -> &str {
    plan["optimizer"]["kind"].as_str().unwrap_or(NESTEROV)
}

/// The first field in which two documents differ, and its two values.
pub(super) fn first_difference(field: &str, before: &Value, now: &Value) -> Option<Difference> {
    match (before, now) {
        (Value::Object(old), Value::Object(new)) => {
            let of =
                |map: &serde_json::Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or_default();
            let added = new.keys().filter(|key| !old.contains_key(*key));
            old.keys()
                .chain(added)
                .find_map(|key| first_difference(&format!("{field}.{key}"), &of(old, key), &of(new, key)))
        }
        (Value::Array(old), Value::Array(new)) => {
            let pairs = old.iter().zip(new).enumerate();
            pairs
                .map(|(at, (old, new)): (usize, (&Value, &Value))| {
                    first_difference(&format!("{field}[{}]", at + 1), old, new)
                })
                .find_map(|found| found)
                .or_else(|| {
                    (old.len() != new.len())
                        .then(|| (format!("length of {field}"), old.len().to_string(), new.len().to_string()))
                })
        }
        _ => (before != now).then(|| (field.to_string(), before.to_string(), now.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Allowed, OptimizerSettings, Recipe, Teacher};
    use space::preset;

    /// Phases of 180, 125, 25, 125, 25 and 125 steps.
    fn recipe() -> Recipe {
        Recipe::progressive().suited_to(&preset("fashion").expect("a preset")).scaled(0.1)
    }

    fn kernels(most: usize) -> Allowed {
        Allowed::new(&[("kernel", most), ("depth", 1), ("expand", 1)])
    }

    fn plan(change: impl FnOnce(&mut Recipe)) -> TrainingPlan {
        let mut recipe = recipe();
        change(&mut recipe);
        TrainingPlan::new(&recipe, 10, 1)
    }

    fn field(step: u64, change: impl FnOnce(&mut Recipe)) -> Option<String> {
        behind(&value_of(&plan(|_| {})), &value_of(&plan(change)), step).map(|(field, ..)| field)
    }

    #[test]
    fn what_is_to_come_may_change_and_what_was_may_not() {
        let lower = |phase: usize| move |recipe: &mut Recipe| recipe.phases[phase].lr /= 2.0;
        let longer = |phase: usize| move |recipe: &mut Recipe| recipe.phases[phase].epochs *= 2.0;
        let said = |text: &str| Some(text.to_string());
        assert_eq!(field(180, lower(1)), None, "no step of it is taken");
        assert_eq!(field(181, lower(1)), None, "it has begun");
        assert_eq!(field(305, lower(1)), said("plan.phases[2].lr"), "it has ended");
        assert_eq!(field(181, longer(1)), None);
        assert_eq!(field(180, longer(0)), said("plan.phases[1].epochs"));
        assert_eq!(field(179, longer(0)), None);
        assert_eq!(field(305, |recipe| recipe.phases.truncate(2)), None);
        assert_eq!(field(305, |recipe| recipe.phases.truncate(1)), said("length of plan.phases"));
        assert_eq!(field(300, |recipe| recipe.phases[1].epochs /= 2.0), said("plan.phases[2].steps"));
        assert_eq!(
            field(200, |recipe| recipe.phases[1].allowed = kernels(2)),
            said("plan.phases[2].allowed.kernel")
        );
        assert_eq!(field(180, |recipe| recipe.phases[1].allowed = kernels(2)), None);
        assert_eq!(field(1, |recipe| recipe.batch = 32), said("plan.batch"));
        let adamw = |beta1| OptimizerSettings::AdamW { beta1, beta2: 0.999, epsilon: 1e-8 };
        assert_eq!(field(1, |recipe| recipe.optimizer = adamw(0.9)), said("plan.optimizer"));
        assert_eq!(field(1, |recipe| recipe.weight_decay = 0.0), said("plan.weight_decay"));
        assert_eq!(field(300, |recipe| recipe.name = "another".to_string()), None);
    }

    #[test]
    fn an_optimizer_is_another_by_its_kind_and_its_numbers() {
        let adamw = |beta1| {
            value_of(&plan(|recipe| {
                recipe.optimizer = OptimizerSettings::AdamW { beta1, beta2: 0.999, epsilon: 1e-8 };
            }))
        };
        let said = |field: &str, before: &str, now: &str| {
            Some((field.to_string(), before.to_string(), now.to_string()))
        };
        let nesterov = value_of(&plan(|_| {}));
        assert_eq!(behind(&nesterov, &adamw(0.9), 7), said("plan.optimizer", "nesterov", "adamw"));
        assert_eq!(behind(&adamw(0.9), &nesterov, 7), said("plan.optimizer", "adamw", "nesterov"));
        assert_eq!(behind(&adamw(0.9), &adamw(0.8), 7), said("plan.optimizer.beta1", "0.9", "0.8"));
    }

    #[test]
    fn a_file_that_has_taught_stays_and_one_that_has_not_may_come() {
        let with = |phase: usize, file: Option<&str>| {
            let mut plan = plan(|recipe| recipe.phases[phase].teacher = Teacher::File);
            plan.teacher = file.map(str::to_string);
            value_of(&plan)
        };
        let none = value_of(&plan(|_| {}));
        let full = with(0, Some("a"));
        let kernel = with(1, Some("a"));
        let field =
            |before: &Value, now: &Value, step: u64| behind(before, now, step).map(|(field, ..)| field);
        let teacher = || Some("plan.teacher".to_string());
        for step in [1, 200] {
            assert_eq!(field(&full, &with(0, Some("b")), step), teacher(), "{step}");
        }
        assert_eq!(field(&kernel, &with(1, Some("b")), 180), None, "it is yet to teach");
        assert_eq!(field(&kernel, &with(1, Some("b")), 181), teacher());
        assert_eq!(field(&none, &kernel, 181), None, "as any teacher may come within a phase");
        assert_eq!(field(&kernel, &none, 181), None);
        assert_eq!(field(&kernel, &none, 305), Some("plan.phases[2].teacher".to_string()));
    }

    #[test]
    fn plans_follow_one_another_from_step_to_step() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = RunFolder::open(folder.path(), true).expect("empty");
        let first = plan(|_| {});
        let second = plan(|recipe| recipe.phases[1].lr = 0.5);
        let third = plan(|recipe| recipe.phases[1].lr = 0.1);
        let take_up =
            |hash: &str, step: u64, plan: &TrainingPlan| History::taken_up(&run, (hash, step), plan);
        let nothing = serde_json::json!({});
        let (begun, told) = take_up(&first.hash(), 200, &first).expect("its own");
        assert_eq!((begun.hash(), told), (first.hash(), None));
        assert!(take_up(&first.hash(), 200, &second).is_err(), "no plan is written down");
        run.write_history(&begun, &nothing).expect("written");
        let (both, told) = take_up(&first.hash(), 200, &second).expect("the same behind");
        assert_eq!(told.as_deref(), Some("plan.phases[2].lr 0.96 before, 0.5 now"));
        assert_ne!(both.hash(), second.hash());
        run.write_history(&both, &nothing).expect("written");
        // killed before its first checkpoint: either plan goes on
        assert_eq!(take_up(&first.hash(), 200, &first).expect("its own").0, begun);
        assert_eq!(take_up(&first.hash(), 200, &second).expect("the same behind").0, both);
        // after it: the second goes on without a word, a third takes the place of one that no step was taken under
        assert_eq!(take_up(&both.hash(), 210, &second).expect("its own"), (both.clone(), None));
        let steps = |history: &History| {
            history.earlier().iter().chain([history.last()]).map(|begun| begun.from_step).collect::<Vec<_>>()
        };
        assert_eq!(steps(&take_up(&both.hash(), 210, &third).expect("the same behind").0), [0, 200, 210]);
        assert_eq!(steps(&take_up(&both.hash(), 200, &third).expect("the same behind").0), [0, 200]);
        assert_eq!(steps(&take_up(&both.hash(), 0, &third).expect("nothing behind").0), [0]);
        let error = take_up(&both.hash(), 305, &third).expect_err("it has ended").to_string();
        assert!(error.contains("plan.phases[2].lr: expected 0.5, got 0.1"), "{error}");
    }
}
