//! The flags that say what is optimized.

use base::Error;
use extract::search::{Better, Metric, Quantity, TOP1, device_of};

#[derive(clap::Args)]
pub struct GoalFlags {
    /// Metric to maximize: top1, or another one of an evaluator's [default: top1]
    #[arg(long, value_name = "METRIC", conflicts_with = "minimize")]
    maximize: Option<String>,
    /// Metric to minimize: a cost such as macs or latency@NAME, with --min top1=AMOUNT, or one of an evaluator's such as loss;
    /// of another goal than top1 the accuracy is asked for only where --min limits it
    #[arg(long, value_name = "METRIC", conflicts_with = "supernet")]
    minimize: Option<String>,
}

/// What is optimized.
#[derive(Debug, PartialEq)]
pub struct Goal {
    /// The metric.
    pub name: String,
    /// Whether it is a cost, and not estimated.
    pub is_cost: bool,
    /// What has to be estimated: the goal unless it is a cost, and the accuracy where it decides among equals or is limited.
    pub metrics: Vec<Metric>,
}

impl GoalFlags {
    /// The goal, of a search whose accuracies are limited or not.
    ///
    /// # Errors
    /// If it would make the result worse: more of a cost, or less accuracy.
    pub fn goal(&self, limits_accuracy: bool) -> anyhow::Result<Goal> {
        let (name, better) = match (&self.maximize, &self.minimize) {
            (_, Some(name)) => (name.as_str(), Better::Lower),
            (Some(name), _) => (name.as_str(), Better::Higher),
            (None, None) => (TOP1, Better::Higher),
        };
        let is_cost = device_of(name).is_some() || Quantity::ALL.iter().any(|one| one.metric() == name);
        if (is_cost && better == Better::Higher) || (name == TOP1 && better == Better::Lower) {
            let flag = if is_cost { "--maximize" } else { "--minimize" };
            let expected = "a metric of which more is better to maximize, or less to minimize";
            return Err(Error::invalid(flag, "metric", expected, name).into());
        }
        let mut metrics = Vec::new();
        if is_cost || limits_accuracy || name == TOP1 {
            metrics.push(Metric::new(TOP1, "share", Better::Higher));
        }
        if !is_cost && name != TOP1 {
            metrics.push(Metric::new(name, "1", better));
        }
        Ok(Goal { name: name.to_string(), is_cost, metrics })
    }
}

impl Goal {
    /// The goal, and for a cost the accuracy among those that are equal.
    pub fn all(&self) -> Vec<&str> {
        let second = self.is_cost.then_some(TOP1);
        std::iter::once(self.name.as_str()).chain(second).collect()
    }

    /// The goal as a result has it; `None` for the accuracy.
    pub fn written(&self) -> Option<String> {
        (self.name != TOP1).then(|| self.name.clone())
    }

    /// The cost that a search by predictions minimizes, if any.
    ///
    /// # Errors
    /// If it is a metric that no prediction has.
    pub fn cheapest(&self) -> anyhow::Result<Option<&str>> {
        if !self.is_cost && self.name != TOP1 {
            let expected = "top1 or a cost, which an estimator and tables know";
            let error = Error::invalid("--maximize, --minimize", "metric", expected, &self.name);
            return Err(error.and_then_do("give an --evaluator for other metrics").into());
        }
        Ok(self.is_cost.then_some(self.name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_has_a_direction_that_makes_sense() {
        let flags = |maximize: Option<&str>, minimize: Option<&str>| GoalFlags {
            maximize: maximize.map(str::to_string),
            minimize: minimize.map(str::to_string),
        };
        let of = |maximize, minimize| flags(maximize, minimize).goal(false).expect("a goal");
        let names =
            |goal: &Goal| -> Vec<String> { goal.metrics.iter().map(|metric| metric.name.clone()).collect() };
        let accurate = of(None, None);
        assert_eq!(
            (names(&accurate), accurate.all(), accurate.written()),
            (vec!["top1".into()], vec!["top1"], None)
        );
        assert_eq!(accurate.cheapest().expect("predicted"), None);
        let loss = of(None, Some("loss"));
        assert_eq!((names(&loss), loss.all()), (vec!["loss".into()], vec!["loss"]));
        let limited = flags(None, Some("loss")).goal(true).expect("a goal");
        assert_eq!(names(&limited), ["top1", "loss"]);
        assert_eq!(loss.metrics[0].better, Better::Lower);
        assert!(loss.cheapest().is_err());
        assert_eq!(of(Some("f1"), None).metrics[0].better, Better::Higher);
        let cost = of(None, Some("latency@phone"));
        assert_eq!((names(&cost), cost.all()), (vec!["top1".into()], vec!["latency@phone", "top1"]));
        assert_eq!(cost.cheapest().expect("a cost"), Some("latency@phone"));
        for (maximize, minimize) in [(Some("macs"), None), (None, Some("top1"))] {
            assert!(flags(maximize, minimize).goal(false).is_err());
        }
    }
}
