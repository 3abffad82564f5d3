# What zsh offers at the end of command lines: zsh -f ask.zsh FOLDER < LINES
# FOLDER has the script as _pgiam, which compinit finds by its first line. Prints each line behind
# "> ", and what is offered below it. Completion works in a terminal only: zpty is one, and TAB is
# pressed in it.
zmodload zsh/zpty zsh/zselect || exit 2
folder=$1
lines=("${(@f)$(cat)}")
work=$(mktemp -d)
offered=$work/offered

cat >$offered.rc <<RC
PROMPT= RPROMPT=
fpath=($folder \$fpath)
autoload -Uz compinit && compinit -u -D
bindkey '^I' complete-word
# TAB ends with what it has found; it inserts nothing, lists nothing and asks nothing.
compadd() {
    if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "\$@"
        return
    fi
    typeset -a __hits
    builtin compadd -A __hits "\$@"
    (( \$#__hits )) && print -rl -- "\${__hits[@]}" >>$offered
    return 1
}
__done() { : >$offered.done }
comppostfuncs=(__done)
: >$offered.ready
RC

wait_for() {
    integer left=1500
    until [[ -e $1 ]]; do
        (( left-- )) || { print -u2 "zsh: $2"; rm -r $work; exit 3 }
        zselect -t 1
        # Whoever does not read holds it up.
        zpty -rt z said 2>/dev/null
    done
}

for line in $lines; do
    rm -f $offered.ready $offered.done
    : >$offered
    zpty z zsh -f -i
    zpty -w z "source $offered.rc"
    wait_for $offered.ready "did not start"
    zpty -wn z "$line"$'\t'
    wait_for $offered.done "offers nothing in time for: $line"
    zpty -d z
    print -r -- "> $line"
    cat $offered
done
# No trap: the programs in the terminal would inherit it.
rm -r $work
