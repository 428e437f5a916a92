/* A program as jobs on Windows run it, for the tests: shows its arguments, waits for a file, refuses to end, or ends politely.
 *
 *   program.exe --what=args ARGUMENTS...        the arguments, UTF-8, each in <>, to result.txt
 *   program.exe --what=wait --file=RELEASE      "waited" to result.txt when the file RELEASE is there
 *   program.exe --what=stubborn --file=MARK     ignores Ctrl-C, starts two of its kind, and stays; MARK is for the process list
 *   program.exe --what=polite                   "asked" to result.txt and an orderly end on Ctrl-C
 */
#include <windows.h>
#include <stdio.h>
#include <string.h>

static void put(FILE *to, const wchar_t *text) {
    char utf8[8192];
    int length = WideCharToMultiByte(CP_UTF8, 0, text, -1, utf8, sizeof utf8, NULL, NULL);
    if (length > 0) fprintf(to, "<%s>", utf8);
}

static BOOL WINAPI ignore(DWORD event) { (void)event; return TRUE; }

static BOOL WINAPI obey(DWORD event) {
    FILE *to = fopen("result.txt", "wb");
    if (to) { fprintf(to, event == CTRL_C_EVENT ? "asked" : "asked otherwise"); fclose(to); }
    ExitProcess(0);
}

int wmain(int count, wchar_t **arguments) {
    const wchar_t *what = count > 1 && wcsncmp(arguments[1], L"--what=", 7) == 0 ? arguments[1] + 7 : L"";
    const wchar_t *file = count > 2 && wcsncmp(arguments[2], L"--file=", 7) == 0 ? arguments[2] + 7 : L"";
    if (wcscmp(what, L"args") == 0) {
        FILE *to = fopen("result.txt", "wb");
        if (!to) return 2;
        for (int i = 2; i < count; i++) put(to, arguments[i]);
        fclose(to);
        return 0;
    }
    if (wcscmp(what, L"wait") == 0 && *file) {
        printf("progress: 10\r\n");
        fflush(stdout);
        while (GetFileAttributesW(file) == INVALID_FILE_ATTRIBUTES) Sleep(50);
        FILE *to = fopen("result.txt", "wb");
        if (!to) return 2;
        fprintf(to, "waited");
        fclose(to);
        return 0;
    }
    if (wcscmp(what, L"stubborn") == 0 && *file) {
        SetConsoleCtrlHandler(ignore, TRUE);
        if (count == 3) {
            wchar_t self[MAX_PATH], line[2 * MAX_PATH];
            GetModuleFileNameW(NULL, self, MAX_PATH);
            for (int i = 0; i < 2; i++) {
                STARTUPINFOW start = { .cb = sizeof start };
                PROCESS_INFORMATION made;
                swprintf(line, 2 * MAX_PATH, L"\"%ls\" --what=stubborn --file=%ls child", self, file);
                if (CreateProcessW(self, line, NULL, NULL, FALSE, DETACHED_PROCESS, NULL, NULL, &start, &made)) {
                    CloseHandle(made.hThread);
                    CloseHandle(made.hProcess);
                }
            }
            printf("progress: 50\r\n");
            fflush(stdout);
        }
        for (;;) Sleep(1000);
    }
    if (wcscmp(what, L"polite") == 0) {
        SetConsoleCtrlHandler(obey, TRUE);
        printf("progress: 50\r\n");
        fflush(stdout);
        for (;;) Sleep(1000);
    }
    return 3;
}
