//! The plans under which a run's steps were taken. Steps before a checkpoint keep their plan; a resume may plan the
//! steps after it differently.

use network::checkpoint::NESTEROV;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{TrainingPlan, hash_of};
use super::run_folder::RunFolder;
use crate::error::Result;

/// A plan, as in `plan.json`, and the first step under it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub from_step: u64,
    pub plan: Value,
}

/// The plans of a run, in order; never empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct History(Vec<Begun>);

/// A field in which two plans differ, and its values.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    pub field: String,
    pub before: String,
    pub now: String,
}

impl History {
    /// The history of a new run.
    pub(super) fn new(plan: &TrainingPlan) -> Self {
        Self(vec![Begun { from_step: 0, plan: value_of(plan) }])
    }

    /// The history in `plan.json`, from its fields.
    pub(super) fn of(mut earlier: Vec<Begun>, from_step: u64, plan: Value) -> Self {
        earlier.push(Begun { from_step, plan });
        Self(earlier)
    }

    /// The plans before the last.
    pub(super) fn earlier(&self) -> &[Begun] {
        &self.0[..self.0.len() - 1]
    }

    /// The current plan, and its first step.
    pub(super) fn last(&self) -> &Begun {
        self.0.last().expect("never empty")
    }

    /// Hash of the only plan, or of the list of several.
    pub(super) fn hash(&self) -> String {
        match &self.0[..] {
            [only] => hash_of(&only.plan),
            several => hash_of(&several),
        }
    }

    /// The history of a run resumed after `step` steps with `plan`, and the change of plan in words, if there is one.
    /// The checkpoint was written under plans with hash `made_under`.
    ///
    /// # Errors
    /// If the plan differs for steps before the checkpoint, or the plan of those steps is unknown.
    pub(super) fn resumed(
        folder: &RunFolder,
        made_under: &str,
        step: u64,
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
        Ok((
            history,
            new.map(|Difference { field, before, now }| format!("{field} {before} before, {now} now")),
        ))
    }

    /// The first plans, up to the one that gives this hash: a process may have written a later plan and taken no step
    /// under it.
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

/// Fields that may change in a phase that has begun and not ended: only its remaining steps depend on them.
const STILL_OPEN: [&str; 14] = [
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
    "lr_floor",
    "distillation",
    "dropout",
];

/// The first difference between the plans `before` and `now` that concerns steps before `step`. Phases that have
/// ended must be equal. The phase that has begun must allow the same sub-networks and have a step left; its rates and
/// numbers of steps may change. The teacher file must be equal if it has taught and will teach again.
fn behind(before: &Value, now: &Value, step: u64) -> Option<Difference> {
    let [kind_before, kind_now] = [before, now].map(optimizer_of);
    if kind_before != kind_now {
        let [before, now] = [kind_before, kind_now].map(str::to_string);
        return Some(Difference { field: OPTIMIZER.to_string(), before, now });
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
        // the recipe's name has no effect
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

/// Removes the fields that may change from the last phase that has begun, unless it has ended. Returns a difference
/// if it would have no step left.
fn open_last(old: &mut [Value], new: &mut [Value], step: u64) -> Option<Difference> {
    let (index, last) = old.iter_mut().enumerate().next_back()?;
    let done = step - number(last, "first_step");
    let going_on = new.get_mut(index).filter(|_| done < number(last, "steps"))?;
    let left = number(going_on, "steps");
    for phase in [last, going_on].into_iter().filter_map(Value::as_object_mut) {
        for field in STILL_OPEN {
            phase.remove(field);
        }
    }
    (left <= done).then(|| Difference {
        field: format!("plan.phases[{}].steps", index + 1),
        before: format!("more than the {done} already taken"),
        now: left.to_string(),
    })
}

fn number(phase: &Value, field: &str) -> u64 {
    phase[field].as_u64().unwrap_or(u64::MAX)
}

/// The field of a plan that names the optimizer, if it is not Nesterov's.
pub(super) const OPTIMIZER: &str = "plan.optimizer";

/// Kind of a plan's optimizer.
fn optimizer_of(plan: &Value) -> &str {
    plan["optimizer"]["kind"].as_str().unwrap_or(NESTEROV)
}

/// The first field in which two documents differ, and its two values.
pub(super) fn first_difference(field: &str, before: &Value, now: &Value) -> Option<Difference> {
    match (before, now) {
        (Value::Object(old), Value::Object(new)) => {
            let added = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(added) {
                let [before, now] = [old, new].map(|fields| fields.get(key).unwrap_or(&Value::Null));
                let found = first_difference(&format!("{field}.{key}"), before, now);
                if found.is_some() {
                    return found;
                }
            }
            None
        }
        (Value::Array(old), Value::Array(new)) => {
            for (at, (before, now)) in old.iter().zip(new).enumerate() {
                let found = first_difference(&format!("{field}[{}]", at + 1), before, now);
                if found.is_some() {
                    return found;
                }
            }
            (old.len() != new.len()).then(|| Difference {
                field: format!("length of {field}"),
                before: old.len().to_string(),
                now: new.len().to_string(),
            })
        }
        _ => (before != now).then(|| Difference {
            field: field.to_string(),
            before: before.to_string(),
            now: now.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Allowed, Distillation, Dropout, OptimizerSettings, Recipe, Teacher};
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
        behind(&value_of(&plan(|_| {})), &value_of(&plan(change)), step).map(|difference| difference.field)
    }

    #[test]
    fn later_steps_may_change_and_earlier_ones_may_not() {
        let lower = |phase: usize| move |recipe: &mut Recipe| recipe.phases[phase].lr /= 2.0;
        let longer = |phase: usize| move |recipe: &mut Recipe| recipe.phases[phase].epochs *= 2.0;
        let said = |text: &str| Some(text.to_string());
        assert_eq!(field(180, lower(1)), None, "no step of it is taken");
        assert_eq!(field(181, lower(1)), None, "it has begun");
        assert_eq!(field(305, lower(1)), said("plan.phases[2].lr"), "it has ended");
        let floor = |recipe: &mut Recipe| recipe.phases[1].lr_floor = 0.1;
        assert_eq!(field(181, floor), None, "it has begun");
        assert_eq!(field(305, floor), said("plan.phases[2].lr_floor"));
        assert_eq!(field(181, |recipe| recipe.phases[1].distillation = Distillation::Only), None);
        assert_eq!(field(181, |recipe| recipe.phases[1].dropout = Dropout::Largest), None);
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
        let adamw = OptimizerSettings::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        assert_eq!(field(1, |recipe| recipe.optimizer = adamw), said("plan.optimizer"));
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
            let [field, before, now] = [field, before, now].map(str::to_string);
            Some(Difference { field, before, now })
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
        let field = |before: &Value, now: &Value, step: u64| {
            behind(before, now, step).map(|difference| difference.field)
        };
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
        let resume = |hash: &str, step: u64, plan: &TrainingPlan| History::resumed(&run, hash, step, plan);
        let nothing = serde_json::json!({});
        let (begun, change) = resume(&first.hash(), 200, &first).expect("its own");
        assert_eq!((begun.hash(), change), (first.hash(), None));
        assert!(resume(&first.hash(), 200, &second).is_err(), "no plan is written down");
        run.write_history(&begun, &nothing).expect("written");
        let (both, change) = resume(&first.hash(), 200, &second).expect("the same behind");
        assert_eq!(change.as_deref(), Some("plan.phases[2].lr 0.96 before, 0.5 now"));
        assert_ne!(both.hash(), second.hash());
        run.write_history(&both, &nothing).expect("written");
        // killed before its first checkpoint: either plan continues
        assert_eq!(resume(&first.hash(), 200, &first).expect("its own").0, begun);
        assert_eq!(resume(&first.hash(), 200, &second).expect("the same behind").0, both);
        // after it: the second plan continues unchanged, a third replaces one that no step was taken under
        assert_eq!(resume(&both.hash(), 210, &second).expect("its own"), (both.clone(), None));
        let steps = |history: &History| {
            history.earlier().iter().chain([history.last()]).map(|begun| begun.from_step).collect::<Vec<_>>()
        };
        assert_eq!(steps(&resume(&both.hash(), 210, &third).expect("the same behind").0), [0, 200, 210]);
        assert_eq!(steps(&resume(&both.hash(), 200, &third).expect("the same behind").0), [0, 200]);
        assert_eq!(steps(&resume(&both.hash(), 0, &third).expect("nothing behind").0), [0]);
        let error = resume(&both.hash(), 305, &third).expect_err("it has ended").to_string();
        assert!(error.contains("plan.phases[2].lr: expected 0.5, got 0.1"), "{error}");
    }
}
