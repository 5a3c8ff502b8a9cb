/*
 * A process that owns one page and reads it again and again: "victim NAME [flags]".
 *
 *   h  handle SIGBUS: say code, address, lsb and pc, then end; without it the signal kills
 *   e  ask for early signals (PR_MCE_KILL_EARLY), BUS_MCEERR_AO as soon as the page is lost, and leave the page alone
 *   i  leave the page alone
 *   s  read it without a pause
 *   b  own 2 MiB of physical memory that begin at a multiple of that, in pages of 4 KiB, and read the first of them
 *   w  wait behind SIGBUS instead of ending
 *   k  let a child have the page too for two minutes, so that nobody else gets it when the process ends
 *   0 to 7  run on this CPU only
 *
 * It says where everything lies: pid, virtual and physical address of the page, pc and physical address of the one
 * instruction that reads it.  No C library: whoever reads guest memory or steps through it meets nothing else.
 */
typedef unsigned long u64;
typedef unsigned int u32;

enum { SYS_openat = 56, SYS_close = 57, SYS_write = 64, SYS_pread64 = 67, SYS_ppoll = 73, SYS_exit_group = 94,
       SYS_nanosleep = 101, SYS_sched_setaffinity = 122, SYS_rt_sigaction = 134, SYS_prctl = 167, SYS_getpid = 172,
       SYS_clone = 220, SYS_mmap = 222, SYS_madvise = 233 };
enum { SIGBUS = 7, SIGCHLD = 17, SA_SIGINFO = 4, PROT_RW = 3, MAP_PRIVATE_ANONYMOUS = 0x22, MADV_NOHUGEPAGE = 15,
       AT_FDCWD = -100, PR_MCE_KILL = 33, PR_MCE_KILL_SET = 1, PR_MCE_KILL_EARLY = 1, BIG = 2 << 20,
       POOL = 16 << 20 };

struct siginfo { int signo, error, code, pad; u64 address; short lsb; };
struct ucontext { u64 flags, link, stack[3], mask[16], pad, fault_address, regs[31], sp, pc; };
struct sigaction { void (*handler)(int, struct siginfo *, struct ucontext *); u64 flags; void *restorer; u64 mask; };

static const char *name;
static u32 lingers;
extern const char victim_load[];

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

static char line[512];
static u32 used;

static void text(const char *s)
{
	while (*s && used < sizeof(line))
		line[used++] = *s++;
}

static void number(const char *label, u64 value, u32 base)
{
	char digits[20];
	u32 count = 0;

	text(" ");
	text(label);
	text(base == 16 ? "=0x" : "=");
	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (count && used < sizeof(line))
		line[used++] = digits[--count];
}

static void flush(void)
{
	text("\n");
	call(SYS_write, 1, (long)line, used, 0, 0, 0);
	used = 0;
}

static u64 physical(const void *where)
{
	u64 entry = 0;
	long fd = call(SYS_openat, AT_FDCWD, (long)"/proc/self/pagemap", 0, 0, 0, 0);

	call(SYS_pread64, fd, (long)&entry, 8, (u64)where / 4096 * 8, 0, 0);
	call(SYS_close, fd, 0, 0, 0, 0, 0);
	return (entry & ((1UL << 55) - 1)) * 4096 + (u64)where % 4096;
}

/* Of the pool's pages the first of 2 MiB that all are in it; without one, the pool's first page. */
static u64 *first_of_big(u64 *pool)
{
	static unsigned short count[8192];

	for (u64 at = (u64)pool; at < (u64)pool + POOL; at += 4096)
		count[physical((void *)at) / BIG % 8192]++;
	for (u64 at = (u64)pool; at < (u64)pool + POOL; at += 4096) {
		u64 where = physical((void *)at);

		if (where % BIG == 0 && count[where / BIG % 8192] == BIG / 4096)
			return (u64 *)at;
	}
	return pool;
}

static void rest(void)
{
	u64 pause[2] = { 0, 1000000 };

	call(SYS_nanosleep, (long)pause, 0, 0, 0, 0, 0);
}

static void on_sigbus(int signal, struct siginfo *info, struct ucontext *context)
{
	(void)signal;
	text("SIGBUS ");
	text(name);
	number("code", info->code, 10);
	number("addr", info->address, 16);
	number("lsb", info->lsb, 10);
	number("pc", context->pc, 16);
	flush();
	while (lingers)
		rest();
	call(SYS_exit_group, 3, 0, 0, 0, 0, 0);
}

__attribute__((used)) static void start(u64 *stack)
{
	u64 argc = stack[0];
	char **argv = (char **)(stack + 1);
	u64 keep[2] = { 120, 0 };
	u64 *page, idle = 0, spin = 0, kept = 0, size = 4096;

	name = argc > 1 ? argv[1] : "victim";
	for (const char *flag = argc > 2 ? argv[2] : ""; *flag; flag++) {
		struct sigaction action = { on_sigbus, SA_SIGINFO, 0, 0 };

		if (*flag == 'h')
			call(SYS_rt_sigaction, SIGBUS, (long)&action, 0, 8, 0, 0);
		if (*flag == 'i')
			idle = 1;
		if (*flag == 's')
			spin = 1;
		if (*flag == 'b')
			size = POOL;
		if (*flag == 'w')
			lingers = 1;
		if (*flag == 'k')
			kept = 1;
		if (*flag >= '0' && *flag <= '7') {
			u64 cpus = 1UL << (*flag - '0');

			call(SYS_sched_setaffinity, 0, sizeof(cpus), (long)&cpus, 0, 0, 0);
		}
		if (*flag == 'e') {
			idle = 1;
			call(SYS_prctl, PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0, 0);
		}
	}
	page = (u64 *)call(SYS_mmap, 0, size, PROT_RW, MAP_PRIVATE_ANONYMOUS, -1, 0);
	if (size == POOL)
		call(SYS_madvise, (long)page, size, MADV_NOHUGEPAGE, 0, 0, 0);
	for (u64 i = 0; i < size / 8; i++)
		page[i] = 0x5a5a5a5a5a5a5a5aUL;
	if (size == POOL)
		page = first_of_big(page);
	if (kept && !call(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0)) {
		call(SYS_ppoll, 0, 0, (long)keep, 0, 0, 0);
		call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
	}
	text("VICTIM ");
	text(name);
	number("pid", call(SYS_getpid, 0, 0, 0, 0, 0, 0), 10);
	number("va", (u64)page, 16);
	number("pa", physical(page), 16);
	number("pc", (u64)victim_load, 16);
	number("text", physical(victim_load), 16);
	flush();
	for (;;) {
		u64 value;

		if (idle) {
			rest();
			continue;
		}
		__asm__ volatile(".globl victim_load\nvictim_load: ldr %0, [%1]" : "=r"(value) : "r"(page) : "memory");
		if (!spin)
			rest();
	}
}

__asm__(".globl _start\n_start: mov x0, sp\n\tb start");
