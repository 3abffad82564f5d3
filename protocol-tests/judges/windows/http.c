/* http PORT PATH: sends a GET request to 127.0.0.1, and prints the status line of the answer. */
#include <winsock2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **words)
{
    WSADATA data;
    SOCKET connection;
    struct sockaddr_in address = { .sin_family = AF_INET };
    char text[4096];
    int length;
    if (count != 3 || WSAStartup(MAKEWORD(2, 2), &data))
        return 2;
    address.sin_port = htons((unsigned short)atoi(words[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection = socket(AF_INET, SOCK_STREAM, 0);
    if (connection == INVALID_SOCKET || connect(connection, (struct sockaddr *)&address, sizeof address))
        return 3;
    length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n", words[2], words[1]);
    if (send(connection, text, length, 0) != length)
        return 4;
    length = recv(connection, text, sizeof text - 1, 0);
    if (length <= 0)
        return 5;
    text[length] = 0;
    printf("%.*s\n", (int)strcspn(text, "\r\n"), text);
    return 0;
}
