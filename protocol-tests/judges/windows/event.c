/* event NUMBER PROGRAM [ARGUMENTS]: runs a program, and turns each Ctrl-C into another event of the
   console for it: 1 is Ctrl-Break, 2 the closed window, 5 the end of the login, 6 the shutdown.
   Wine 8 sends only Ctrl-C by itself. Returns the program's exit code. */
#include <windows.h>
#include <stdlib.h>
#include <wchar.h>

static HANDLE child;
static ULONG_PTR event;
static LPTHREAD_START_ROUTINE routine;

/* Windows also starts this function in a new thread of the process that gets an event. */
static BOOL WINAPI pass_on(DWORD type)
{
    HANDLE thread = CreateRemoteThread(child, NULL, 0, routine, (void *)event, 0, NULL);
    (void)type;
    if (thread)
        CloseHandle(thread);
    return TRUE;
}

/* Returns the command line behind its first word, which may be quoted. */
static wchar_t *behind_word(wchar_t *text)
{
    int quoted = 0;
    for (; *text && (quoted || *text != L' '); text++)
        if (*text == L'"')
            quoted = !quoted;
    while (*text == L' ')
        text++;
    return text;
}

int wmain(int count, wchar_t **words)
{
    STARTUPINFOW start = { .cb = sizeof start };
    PROCESS_INFORMATION started;
    DWORD code = 1;
    if (count < 3)
        return 2;
    event = wcstoul(words[1], NULL, 10);
    routine = (LPTHREAD_START_ROUTINE)GetProcAddress(GetModuleHandleW(L"kernelbase.dll"), "CtrlRoutine");
    if (!routine || !CreateProcessW(NULL, behind_word(behind_word(GetCommandLineW())), NULL, NULL, TRUE,
                                    0, NULL, NULL, &start, &started))
        return 3;
    child = started.hProcess;
    SetConsoleCtrlHandler(pass_on, TRUE);
    WaitForSingleObject(child, INFINITE);
    GetExitCodeProcess(child, &code);
    return (int)code;
}
