/* All of team.c that differs between systems: atomics, the clock, a pause, sleep on a word, threads, forks.
 *
 * To be included before anything of the system.
 */
#ifndef FASTRNN_WAITING_H
#define FASTRNN_WAITING_H

#if !defined(_GNU_SOURCE) && !defined(_WIN32)
#define _GNU_SOURCE /* syscall, whatever standard the compiler was asked for */
#endif

#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

#include <process.h>
#else
#include <pthread.h>
#include <signal.h>
#include <time.h>
#endif

#if defined(__linux__) && !defined(FASTRNN_NO_FUTEX)
#include <sys/syscall.h>
#include <unistd.h>
#ifdef SYS_futex
#include <linux/futex.h>
#define HAVE_FUTEX 1
#endif
#endif
#ifndef HAVE_FUTEX
#define HAVE_FUTEX 0
#endif

/* Atomics.  An exchange, a replacement and an addition order what stands before and after them, a load what stands
 * after it, and a store what stands before it. */

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>

#define OWN_LINE __declspec(align(128))
#if defined(_M_ARM64)
#define ORDERED() __dmb(_ARM64_BARRIER_ISH)
#define HOLD_ON() __yield()
#else
#define ORDERED() _ReadWriteBarrier()
#define HOLD_ON() _mm_pause()
#endif

static __inline uint32_t word_load(const uint32_t *word) {
    uint32_t value = *(const volatile uint32_t *)word;
    ORDERED();
    return value;
}

static __inline void word_store(uint32_t *word, uint32_t value) {
    ORDERED();
    *(volatile uint32_t *)word = value;
}

static __inline uint32_t word_exchange(uint32_t *word, uint32_t value) {
    return (uint32_t)_InterlockedExchange((volatile long *)word, (long)value);
}

static __inline int word_replace(uint32_t *word, uint32_t old, uint32_t value) {
    return (uint32_t)_InterlockedCompareExchange((volatile long *)word, (long)value, (long)old) == old;
}

static __inline ptrdiff_t count_add(ptrdiff_t *count, ptrdiff_t more) {
#ifdef _WIN64
    return (ptrdiff_t)_InterlockedExchangeAdd64((volatile __int64 *)count, more);
#else
    return (ptrdiff_t)_InterlockedExchangeAdd((volatile long *)count, more);
#endif
}

#else

#define OWN_LINE __attribute__((aligned(128)))
#if defined(__x86_64__) || defined(__i386__)
#define HOLD_ON() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define HOLD_ON() __asm__ volatile("isb" ::: "memory") /* yield is over at once on most of them */
#else
#define HOLD_ON() __asm__ volatile("" ::: "memory")
#endif

static inline uint32_t word_load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

static inline void word_store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

static inline uint32_t word_exchange(uint32_t *word, uint32_t value) {
    return __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
}

static inline int word_replace(uint32_t *word, uint32_t old, uint32_t value) {
    return __atomic_compare_exchange_n(word, &old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}

static inline ptrdiff_t count_add(ptrdiff_t *count, ptrdiff_t more) {
    return __atomic_fetch_add(count, more, __ATOMIC_SEQ_CST);
}

#endif

/* A word on which one thread at a time can sleep. */
typedef struct {
    uint32_t value;
#if HAVE_FUTEX
#elif defined(_WIN32)
    SRWLOCK lock;
    CONDITION_VARIABLE changed;
#else
    pthread_mutex_t lock;
    pthread_cond_t changed;
#endif
} waiting_word;

/* word_prepare: before its first use.  word_sleep: until the word has another value than `value` and word_wake was
 * called, or sooner, for no reason.  word_wake: after the word was given another value. */
#if HAVE_FUTEX

static inline void word_prepare(waiting_word *word, uint32_t value) { word_store(&word->value, value); }

static inline void word_sleep(waiting_word *word, uint32_t value) {
    syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static inline void word_wake(waiting_word *word) {
    syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

#elif defined(_WIN32)

static inline void word_prepare(waiting_word *word, uint32_t value) {
    InitializeSRWLock(&word->lock);
    InitializeConditionVariable(&word->changed);
    word_store(&word->value, value);
}

static inline void word_sleep(waiting_word *word, uint32_t value) {
    AcquireSRWLockExclusive(&word->lock);
    while (word_load(&word->value) == value) SleepConditionVariableSRW(&word->changed, &word->lock, INFINITE, 0);
    ReleaseSRWLockExclusive(&word->lock);
}

static inline void word_wake(waiting_word *word) {
    AcquireSRWLockExclusive(&word->lock);
    ReleaseSRWLockExclusive(&word->lock);
    WakeAllConditionVariable(&word->changed);
}

#else

static inline void word_prepare(waiting_word *word, uint32_t value) {
    pthread_mutex_init(&word->lock, NULL);
    pthread_cond_init(&word->changed, NULL);
    word_store(&word->value, value);
}

static inline void word_sleep(waiting_word *word, uint32_t value) {
    pthread_mutex_lock(&word->lock);
    while (word_load(&word->value) == value) pthread_cond_wait(&word->changed, &word->lock);
    pthread_mutex_unlock(&word->lock);
}

static inline void word_wake(waiting_word *word) {
    pthread_mutex_lock(&word->lock);
    pthread_cond_broadcast(&word->changed);
    pthread_mutex_unlock(&word->lock);
}

#endif

/* clock_now: nanoseconds that never run backwards.  start_thread: a thread that nobody waits for, which gets no
 * signals; zero when there is none to be had.  after_fork: what a child is to call first; zero when that cannot be. */
#ifdef _WIN32

static inline int64_t clock_now(void) {
    LARGE_INTEGER ticks, second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&second);
    return ticks.QuadPart / second.QuadPart * 1000000000 +
           ticks.QuadPart % second.QuadPart * 1000000000 / second.QuadPart;
}

#define THREAD_BODY(name, argument) static unsigned __stdcall name(void *argument)

static inline int start_thread(unsigned(__stdcall *body)(void *), void *argument) {
    uintptr_t thread = _beginthreadex(NULL, 0, body, argument, 0, NULL);
    if (thread != 0) CloseHandle((HANDLE)thread);
    return thread != 0;
}

static inline int after_fork(void (*reset)(void)) {
    (void)reset;
    return 1;
}

#else

static inline int64_t clock_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#define THREAD_BODY(name, argument) static void *name(void *argument)

static inline int start_thread(void *(*body)(void *), void *argument) {
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    int failed;
    if (pthread_attr_init(&attributes) != 0) return 0;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread has the mask of its maker */
    failed = pthread_create(&thread, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return !failed;
}

static inline int after_fork(void (*reset)(void)) { return pthread_atfork(NULL, NULL, reset) == 0; }

#endif

#endif
