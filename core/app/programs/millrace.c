/* `millrace`: the program for people. Everything is in app/cli.c. */
#include "app/cli.h"
#include "app/stdio.h"

int main(int argc, char **argv)
{
    return !stdio_fill() ? CLI_FAILED : cli_main(argc, argv);
}
