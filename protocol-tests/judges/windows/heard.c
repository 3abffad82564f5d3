/* heard: prints "ready", waits for an event of the console, prints its number, and returns 40 more
   than that: 40 for Ctrl-C. The shells of Wine return 0 then. */
#include <windows.h>
#include <stdio.h>

static HANDLE came;
static volatile DWORD number;

static BOOL WINAPI hear(DWORD type)
{
    number = type;
    SetEvent(came);
    return TRUE;
}

int main(void)
{
    came = CreateEventW(NULL, TRUE, FALSE, NULL);
    SetConsoleCtrlHandler(hear, TRUE);
    puts("ready");
    fflush(stdout);
    WaitForSingleObject(came, INFINITE);
    printf("heard %lu\n", number);
    fflush(stdout);
    return (int)(40 + number);
}
