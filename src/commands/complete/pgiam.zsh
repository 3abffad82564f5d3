#compdef pgiam
# Completions of pgiam for zsh. pgiam itself returns the words, for the line up to the cursor.
_pgiam() {
    local program=pgiam kind line value
    local -a lines offered
    [[ $words[1] != */* ]] || program=${${(Q)words[1]}/#\~\//$HOME/}
    lines=("${(@f)$("$program" __complete zsh -- "${(@Q)words[1,CURRENT-1]}" "${(Q)IPREFIX}${(Q)PREFIX}" 2>/dev/null)}")
    kind=$lines[1]
    shift lines
    case $kind in
        files)
            compset -P '--*='
            _files
            ;;
        directories)
            compset -P '--*='
            _files -/
            ;;
        command*)
            integer at=${words[(i)--]}
            words=(${kind#command} "${(@)words[at+1,-1]}")
            words[1]=${words[1]# }
            (( CURRENT -= at ))
            [[ $kind == command ]] || (( CURRENT += 1 ))
            _normal -p pgiam
            ;;
        *)
            for line in $lines; do
                value=${line%%$'\t'*}
                offered+=("${${value//\\/\\\\}//:/\\:}:${line#*$'\t'}")
            done
            (( $#offered )) && _describe 'pgiam' offered
            ;;
    esac
}
if [[ $funcstack[1] == _pgiam ]]; then
    _pgiam "$@"
else
    compdef _pgiam pgiam
fi
