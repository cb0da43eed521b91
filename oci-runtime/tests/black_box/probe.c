/* Makes one system call and prints what came of it: probe x64|x32|i386 NUMBER [ARGUMENT...], and -ERRNO on failure. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	unsigned long a[6] = {0};
	long nr, ret;

	if (argc < 3)
		return 2;
	nr = strtol(argv[2], NULL, 0);
	for (int i = 3; i < argc && i < 9; i++)
		a[i - 3] = strtoul(argv[i], NULL, 0);
	if (!strcmp(argv[1], "i386")) {
		__asm__ volatile("int $0x80"
				 : "=a"(ret)
				 : "a"(nr), "b"(a[0]), "c"(a[1]), "d"(a[2])
				 : "memory", "r8", "r9", "r10", "r11");
		ret = (int)ret;
	} else {
		register unsigned long r10 __asm__("r10") = a[3];
		register unsigned long r8 __asm__("r8") = a[4];
		register unsigned long r9 __asm__("r9") = a[5];

		if (!strcmp(argv[1], "x32"))
			nr |= 0x40000000;
		__asm__ volatile("syscall"
				 : "=a"(ret)
				 : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
				 : "memory", "rcx", "r11");
	}
	printf("%ld\n", ret);
	return 0;
}
