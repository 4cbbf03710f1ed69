/* `millrace`: the program for people. Everything is in app/cli.c. */
#include "app/cli.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
