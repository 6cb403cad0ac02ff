# Start file of the agent's shell. Tells the runtime when a command ended, and keeps no history.
# The runtime types `. FILE; eval "$NESTOR_COMMAND"`, so that commands of any length and shape go through a terminal
# whose lines are short, and so that no value of a secret is ever typed.
set +o history
set +H
unset HISTFILE
shopt -u checkwinsize
PS1= PS2=
__nestor_prompt() {
    local nestor_status=$?
    { local - IFS=' '; set +eux; } 2>/dev/null
    PS1= PS2=
    if [ -n "${NESTOR_NAMES-}" ]; then unset -v $NESTOR_NAMES NESTOR_NAMES; fi
    printf '\033]7771;%s;end;%s;%s\007' "$NESTOR_SHELL" "$nestor_status" "$PWD"
}
PROMPT_COMMAND=__nestor_prompt
