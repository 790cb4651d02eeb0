"""Pictures of features: channels, patches, matches, charts."""
