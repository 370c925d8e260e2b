"""The engine: knows the contracts of stages, but no stage.

Vocabulary, one word per idea: *backup* (an entry of `backups:`), *stage*, *source*, *transform*,
*storage*, *notifier*, *artifact* (one named stream of a backup), *chunk*, *trailer* (the explicit
end of a stream that ended well), *branch*, *manifest*, *problem* (of the configuration), *outcome*,
*run*.
"""
