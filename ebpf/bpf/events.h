/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What passes to user space. src/event.rs has the same layouts and asserts their sizes. */
#pragma once

#include "kernel.h"

#define EXTENTS_MAX 32		/* 32 to an event: 120 ns a read instead of 190, and 1 KiB of locked memory a slot */
#define SLOTS_PER_CPU 32	/* files that threads of one CPU read at the same time before they push each other out */
#define UNWATCHED_PER_CPU 64
#define PATH_BUFFER_BYTES 4096	/* PATH_MAX */
#define NAME_BYTES 256		/* NAME_MAX and its NUL */
#define DEPTH_MAX 48		/* components between a file and the watched root */
#define FILENAME_BYTES 256
#define ARGV_BYTES 1024
#define GROUP_BYTES 1024
#define GROUP_DEPTH_MAX 16	/* a container of a pod in a cluster inside a container is 10 deep */
#define GROUP_KINDS_MAX 16	/* a kernel has some 14 controllers */
#define ANNOUNCED_ENTRIES 65536	/* files whose path user space has heard; a file pushed out is told again */
#define AIO_EVENTS_MAX 1024	/* answers of one io_getevents that are looked at; more are counted as unresolved */
#define WAITS_MAX 16384		/* threads blocked in a read at the same time */

enum event_type { EVENT_SLOT = 1, EVENT_PATH, EVENT_FORK, EVENT_EXEC, EVENT_EXIT, EVENT_FAULT_WAIT };

enum extent_op { EXTENT_READ = 1, EXTENT_FAULT, EXTENT_PAGES, EXTENT_ASYNC };

enum slot_flag {
	SLOT_OPENED = 1,	/* the slot begins with an open */
	SLOT_WRITABLE = 2,	/* ... for writing */
	SLOT_CLOSED = 4,	/* and the descriptor is closed now */
};

/* How a file is met that no descriptor leads to. */
enum slot_way { WAY_MAPPED = -1, WAY_URING = -2, WAY_PAGES = -3 };

struct extent {
	u64 offset;
	u64 length;
	u32 calls;
	u32 blocked_us;
	u32 jiffies;	/* low half, when the first of its calls returned */
	u16 op;
	u16 missed;	/* a call of it waited for a device */
};

/*
 * What one process did to one open file on one CPU since the slot was last given out. Only the CPU writes it, with
 * `begun` before and `done` after each change, so that user space can copy it from the shared mapping and knows
 * whether the copy is whole.
 */
struct slot {
	u32 type;
	u32 cookie;	/* grows each time the slot is given out: with `cpu` and `index`, names this filling */
	u64 done;
	u64 file;	/* struct file, or struct inode for a mapping */
	u64 inode;
	u64 file_id;
	u64 opened_ns;
	u64 calls;
	u32 process;
	s32 fd;		/* or one of slot_way */
	u32 parent;
	u32 epoch;
	u32 flags;
	u32 count;
	u16 cpu;
	u16 index;
	u32 root;
	struct extent extents[EXTENTS_MAX];
	u64 begun;
};

/* The name of a file, told when it is first met: components from the file up to the watched root, NUL-separated. */
struct path_event {
	u32 type;
	u32 root;
	u64 file_id;
	u64 inode_number;
	u32 fingerprint_index;
	u32 length;
	u8 names[PATH_BUFFER_BYTES + NAME_BYTES];
};

struct process_event {
	u32 type;
	u32 process;
	u32 parent;
	u16 argv_length;
	u16 group_length;
	u64 at_ns;
	u64 started_ns;
	u8 filename[FILENAME_BYTES];
	u8 words[ARGV_BYTES + GROUP_BYTES + NAME_BYTES];	/* arguments, then names of the control group from the innermost up */
};

struct fault_wait_event {
	u32 type;
	u32 process;
	u64 file_id;
	u64 waited_ns;
	u64 offset;
};

/* What user space says of a slot: how many of its calls it has copied. Keeps the count of losses exact. */
struct taken {
	u32 cookie;
	u32 pad;
	u64 calls;
};

/* One per CPU. */
struct tally {
	u64 lost_slots;		/* fillings that found the ring full ... */
	u64 lost_calls;		/* ... and the calls in them that nobody had copied */
	u64 lost_paths;
	u64 lost_process_events;
	u64 unresolved_calls;	/* reads whose descriptor was gone or whose path was too deep */
	u64 compat_calls;	/* calls of 32-bit programs, which are not decoded */
	u32 waiter;		/* the thread that came back from a wait on this CPU */
	u32 fault_process;
	u64 fault_file_id;
	u64 fault_offset;
};

/* Written by user space when a root is added; a rename starts another epoch too, and each verdict of an old one is void. */
struct control {
	u32 epoch;
	u32 pad;
	u64 root_bits;		/* one bit for each watched root's inode: most directories need no lookup */
	u64 device_bits;	/* one bit for each watched root's super block */
};

struct root {
	u32 id;
	u32 dev;
	u64 inode_number;
};

struct identity {
	u64 inode;
	u64 inode_number;
	u64 super_block;
	u64 is_fs_root;
	u64 now_ns;
	u64 jiffies;
	u32 dev;
	u32 calls;
};
