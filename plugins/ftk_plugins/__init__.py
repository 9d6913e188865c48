"""The variants that come with ftk; each module offers its own through the same hooks as any third party's."""

FTK_HOOK_VERSION = 3

PLUGINS = (
    "ftk_plugins.models.pretrained",
    "ftk_plugins.models.scratch",
    "ftk_plugins.datasets.files",
    "ftk_plugins.datasets.hub",
    "ftk_plugins.datasets.world_facts",
    "ftk_plugins.transforms.clean",
    "ftk_plugins.transforms.map_columns",
    "ftk_plugins.transforms.template",
    "ftk_plugins.transforms.few_shot",
    "ftk_plugins.objectives.causal_lm",
    "ftk_plugins.objectives.classification",
    "ftk_plugins.objectives.instruction",
    "ftk_plugins.objectives.masked_lm",
    "ftk_plugins.adaptations.full",
    "ftk_plugins.adaptations.head",
    "ftk_plugins.adaptations.partial",
    "ftk_plugins.adaptations.layerwise_lr",
    "ftk_plugins.adaptations.progressive",
    "ftk_plugins.adaptations.lora",
    "ftk_plugins.adaptations.dora",
    "ftk_plugins.adaptations.ia3",
    "ftk_plugins.mitigations.ewc",
    "ftk_plugins.mitigations.replay",
    "ftk_plugins.mitigations.interpolation",
    "ftk_plugins.evaluators.perplexity",
    "ftk_plugins.evaluators.keyword_accuracy",
    "ftk_plugins.evaluators.exact_match",
)
