# Completions of pgiam for bash. pgiam itself returns the words, for the line up to the cursor.
_pgiam() {
    local program=pgiam kind='' line at
    [[ $1 != */* ]] || program=${1/#\~\//$HOME/}
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ -z $kind ]]; then kind=$line; else COMPREPLY+=("$line"); fi
    done < <("$program" __complete bash "$COMP_WORDBREAKS" -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    case $kind in
        files) compopt -o default 2>/dev/null || COMPREPLY=($(compgen -f -- "$2")) ;;
        directories) compopt -o dirnames 2>/dev/null || COMPREPLY=($(compgen -d -- "$2")) ;;
        command*)
            for ((at = 1; at < COMP_CWORD; at++)); do
                [[ ${COMP_WORDS[at]} != -- ]] || break
            done
            local -a before
            [[ $kind == command ]] || before=("${kind#command }")
            COMP_WORDS=("${before[@]}" "${COMP_WORDS[@]:at+1}")
            COMP_CWORD=$((COMP_CWORD - at - 1 + ${#before[@]}))
            local IFS=' '
            COMP_LINE="${COMP_WORDS[*]}" COMP_POINT=${#COMP_LINE}
            if declare -F _comp_command_offset >/dev/null; then
                _comp_command_offset 0
            elif declare -F _command_offset >/dev/null; then
                _command_offset 0
            elif ((COMP_CWORD == 0)); then
                local IFS=$'\n'
                COMPREPLY=($(compgen -c -- "$2"))
            else
                compopt -o default 2>/dev/null || COMPREPLY=($(compgen -f -- "$2"))
            fi
            ;;
    esac
}
complete -F _pgiam pgiam
