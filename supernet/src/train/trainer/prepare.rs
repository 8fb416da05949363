//! How a run begins: with fresh weights, with given ones, or where it was left.

use std::sync::Arc;

use network::checkpoint::{Interface, ValidationProgress};
use network::data::{Augmentation, Dataset};
use network::elastic::Gradients;
use space::SearchSpace;

use super::{TrainConfig, Trainer};
use crate::error::{Error, Result};
use crate::train::exchange::{Alone, Exchange};
use crate::train::history::History;
use crate::train::plan::TrainingPlan;
use crate::train::recipe::Recipe;
use crate::train::run_folder::RunFolder;
use crate::train::start::Start;
use crate::train::teacher::TeacherFile;
use crate::train::way_back::WayBack;

/// What is trained, on what, and how.
pub struct TrainTask<'a> {
    /// The space of the supernet.
    pub space: SearchSpace,
    /// The images as the supernet will see them ([`Start::see`]).
    pub dataset: Arc<Dataset>,
    /// The recipe, which is followed as is right for the start and the space.
    pub recipe: &'a Recipe,
    /// What the run begins with.
    pub start: &'a Start,
    /// Who teaches the recipe's phases that a file teaches.
    pub teacher: Option<TeacherFile>,
}

impl Trainer {
    /// Prepares a run from fresh weights: as [`Trainer::of`] with [`Start::Fresh`].
    ///
    /// # Errors
    /// As [`Trainer::of`].
    pub fn new(
        space: SearchSpace,
        dataset: Arc<Dataset>,
        recipe: &Recipe,
        folder: RunFolder,
        config: TrainConfig,
    ) -> Result<Self> {
        Self::of(TrainTask { space, dataset, recipe, start: &Start::Fresh, teacher: None }, folder, config)
    }

    /// Prepares a run: from its last checkpoint where the folder has one, else from its start. One that has diverged goes
    /// back to the end of the phase before. Where the classes of the images are others than those of given weights, the
    /// classifier is made afresh and trained first, with all else frozen.
    ///
    /// # Errors
    /// If data, teacher and space do not fit, the space differs from given weights' in more than classes and resolutions, or the
    /// checkpoint is of another space, plan or data set.
    pub fn of(task: TrainTask, folder: RunFolder, config: TrainConfig) -> Result<Self> {
        let TrainTask { space, dataset, recipe, start, teacher } = task;
        recipe.check_teacher_file(teacher.as_ref().map(TeacherFile::place))?;
        let space = start.space_for(Some(space), dataset.classes().len())?;
        let recipe = &start.recipe(recipe, &dataset);
        let first = start.weights(&space, &dataset, config.seed)?;
        check_fit(&space, &dataset, recipe)?;
        let steps_per_epoch = (dataset.train().len() / recipe.batch) as u64;
        let mut plan = TrainingPlan::new(&recipe.suited_to(&space), steps_per_epoch, config.seed);
        plan.start = first.from.as_ref().map(|from| from.weights.clone());
        let (saved, way_back) = WayBack::taken_up(&folder)?;
        let goes_on_unsaid =
            saved.as_ref().is_some_and(|saved| saved.supernet.interface.preprocess.is_none());
        let (dataset, interface) = match goes_on_unsaid {
            // a run of before files said what they see goes on as it began
            true => (Arc::new(dataset.seen_as(dataset.preprocess_unsaid(&space)?)?), Interface::default()),
            false => {
                let dataset = with_channels_of(&space, dataset)?;
                let begun = saved.as_ref().and_then(|_| folder.planned());
                let augmentation = recipe.augmentation.as_begun(begun.as_ref());
                plan = plan.varying(Augmentation::for_dataset(&dataset, augmentation)?);
                let interface = Interface::of(&dataset);
                (dataset, interface)
            }
        };
        let teacher_file = ready(teacher, &space, &dataset)?;
        plan.teacher = teacher_file.as_ref().map(|teacher| teacher.hash().to_string());
        plan.class_weights =
            recipe.class_weights.as_ref().map(|weights| weights.weights(&dataset)).transpose()?;
        let weights = first.weights.on(&config.backend)?;
        let teacher_file = teacher_file.map(|teacher| teacher.on(&config.backend)).transpose()?;
        let optimizer = plan.optimizer.at_rest(weights.arena(), plan.weight_decay, &config.backend)?;
        let gradients = Gradients::new(&weights)?;
        let data = saved.as_ref().map_or_else(|| dataset.identity(), |saved| saved.training.data.clone());
        let images = plan.validation.and_then(|validation| validation.settings.images);
        let validation_set =
            images.map_or_else(|| dataset.clone(), |images| Arc::new(dataset.with_val_images(images)));
        let mut trainer = Self {
            space,
            dataset,
            validation_set,
            validated: plan.validation.map(|_| ValidationProgress::default()),
            saved_best: None,
            history: History::new(&plan),
            plan,
            config,
            interface,
            data,
            started: first.from,
            exchange: Box::new(Alone),
            folder,
            weights,
            gradients,
            optimizer,
            teacher: None,
            teacher_file,
            step: 0,
            resumed: None,
            went_back: None,
            saved: None,
            keeps_checkpoints: false,
        };
        if let Some(saved) = saved {
            trainer.restore(saved)?;
        } else if trainer.folder.supernet().exists() {
            return Err(base::Error::Occupied {
                path: trainer.folder.supernet(),
                reason: "it is there, but the checkpoint that it came from is not".to_string(),
                next: "put checkpoint.safetensors back, or choose another folder".to_string(),
            }
            .into());
        }
        if let Some(way_back) = way_back {
            way_back.go(&mut trainer.folder)?;
            trainer.went_back = Some(way_back.in_words(&trainer.plan, trainer.step));
        }
        trainer.begin_log()?;
        Ok(trainer)
    }

    /// The same, keeping the checkpoint at the end of each phase for good, in the folder `checkpoints`.
    #[must_use]
    pub fn keeping_checkpoints(self) -> Self {
        Self { keeps_checkpoints: true, ..self }
    }

    /// The same as one of several processes that train together.
    #[must_use]
    pub fn exchanging(self, exchange: impl Exchange + Send + 'static) -> Self {
        Self { exchange: Box::new(exchange), ..self }
    }

    /// Cuts the log back to what the checkpoint holds, and notes what it knows; without a checkpoint it is emptied.
    fn begin_log(&mut self) -> Result<()> {
        let Some(resumed) = &mut self.resumed else { return self.folder.empty_log() };
        let happened = self.folder.cut_log(self.step)?;
        resumed.happened = happened.into_iter().filter(|line| line.steps_taken() == self.step).collect();
        let evaluated = resumed.happened.iter().cloned().filter_map(|line| line.evaluated_at(self.step));
        resumed.evaluated = evaluated.collect();
        Ok(())
    }
}

/// A teacher that was found to fit.
fn ready(
    teacher: Option<TeacherFile>,
    space: &SearchSpace,
    dataset: &Dataset,
) -> Result<Option<TeacherFile>> {
    if let Some(teacher) = &teacher {
        teacher.check_fits(space)?;
        teacher.check_sees(dataset)?;
    }
    Ok(teacher)
}

/// The data set as it is seen, or where that has other channels than the space, as it is best seen for the space.
fn with_channels_of(space: &SearchSpace, dataset: Arc<Dataset>) -> Result<Arc<Dataset>> {
    if dataset.channels() == space.input_channels() {
        return Ok(dataset);
    }
    Ok(Arc::new(dataset.seen_as(dataset.preprocess_for(space)?)?))
}

/// Whether the data fit the space, and a batch can be filled.
fn check_fit(space: &SearchSpace, dataset: &Dataset, recipe: &Recipe) -> Result<()> {
    dataset.check_fits(space)?;
    let images = dataset.train().len();
    if images < recipe.batch {
        let place = format!("data {}", dataset.name());
        let wanted = format!("at least a batch of {}", recipe.batch);
        return Err(
            Error::invalid(place, "training images", wanted, images).and_then_do("take a smaller batch")
        );
    }
    Ok(())
}
