"""What the two HTTP services share: answers, request fields, uploads, task records, the queue and the running of a service."""
