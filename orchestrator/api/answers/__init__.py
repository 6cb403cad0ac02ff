"""What the native API answers, for its document and for the types that are generated from it (`clients/`).

Nothing is checked against these when an answer is sent: that they are true is the business of
`tests/integration/orchestrator/test_answers.py`, which compares them with the answers of every call.
"""
