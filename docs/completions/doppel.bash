# bash completion for doppel: source it, or install it as /usr/share/bash-completion/completions/doppel.
# The options are held to those of the program by tests/app/docs_test.py.
_doppel() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W 'boot run binfmt --help --version' -- "$current")
        return
    fi
    if [ "${COMP_WORDS[1]}" = binfmt ]; then
        mapfile -t COMPREPLY < <(compgen -W 'install remove status --json --help' -- "$current")
        return
    fi
    if [ "${COMP_WORDS[1]}" = run ]; then
        case $previous in
        --engine) mapfile -t COMPREPLY < <(compgen -W 'translate interpret' -- "$current"); return ;;
        --log-level) mapfile -t COMPREPLY < <(compgen -W 'debug info warning error off' -- "$current"); return ;;
        --root | --cwd | --code-cache) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
        --address-bits) mapfile -t COMPREPLY < <(compgen -W '39 48 57' -- "$current"); return ;;
        --cpu) mapfile -t COMPREPLY < <(compgen -W rva22 -- "$current"); return ;;
        esac
        case $current in
        -*) mapfile -t COMPREPLY < <(compgen -W '--help --root --bind -L --env --unset --cwd --argv0
            --engine --cpu --address-bits --code-cache --strace --gdb --stats --log --log-level
            --trace --without-pass --perf-map' -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        esac
        return
    fi
    case $previous in
    --firmware) mapfile -t COMPREPLY < <(compgen -f -W 'builtin none' -- "$current") ;;
    --kernel | --initrd | --dtb | --disk | --gdb | --log) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    --address-bits) mapfile -t COMPREPLY < <(compgen -W '39 48 57' -- "$current") ;;
    --net) mapfile -t COMPREPLY < <(compgen -W 'user none' -- "$current") ;;
    --console | --virtio-console) mapfile -t COMPREPLY < <(compgen -W 'stdio none file= unix=' -- "$current") ;;
    --engine) mapfile -t COMPREPLY < <(compgen -W 'translate interpret' -- "$current") ;;
    --log-level) mapfile -t COMPREPLY < <(compgen -W 'debug info warning error off' -- "$current") ;;
    --name | --memory | --harts | --append | --timeout | --trace | --without-pass) ;;
    *)
        case $current in
        -*) mapfile -t COMPREPLY < <(compgen -W '--help --name --memory --harts --address-bits --kernel --initrd --append --dtb
            --firmware --disk --net --console --virtio-console --engine --gdb --timeout --stats --trace --log --log-level
            --without-pass --perf-map' -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$current") ;;
        esac
        ;;
    esac
}
complete -o filenames -F _doppel doppel
