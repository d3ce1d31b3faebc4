"""Images from registries (OCI distribution-spec 1.1, over HTTPS).

Only the agent and `verdi` import this: nothing that runs in a job, and no command, speaks HTTP. `credentials` reads
what `docker login` writes, `client` asks one registry, `repository` is a source for the image store.
"""
